"""Training files are read as they are meant, and everything else is refused by line and column."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.training.data.dataset import read_rows
from models.training.data.row_layout import check_columns
from models.training.data.row_split import check_classes, check_validation, split_rows
from models.training.data.rows import TextRows, normalized
from models.training.errors import TrainingDataError

LABELLED: list[dict[str, object]] = [{"text": "card lost", "label": "lost"}, {"text": "card stolen", "label": "stolen"}]


def jsonl(path: Path, *records: object, name: str = "rows.jsonl") -> Path:
    target = path / name
    target.write_text(
        "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records),
        encoding="utf-8",
    )
    return target


def raw(path: Path, content: bytes, name: str = "rows.jsonl") -> Path:
    (path / name).write_bytes(content)
    return path / name


def refused(path: Path, **more: Any) -> TrainingDataError:
    with pytest.raises(TrainingDataError) as caught:
        read_rows(path, **more)
    return caught.value


def attempt(path: Path) -> TextRows | TrainingDataError:
    try:
        return read_rows(path)
    except TrainingDataError as error:
        return error


def parquet(path: Path, columns: dict[str, Any], name: str = "rows.parquet") -> Path:
    pq.write_table(pa.table(columns), path / name)
    return path / name


def labelled(*pairs: tuple[str, str]) -> TextRows:
    return TextRows(
        "labelled", [[text for text, _ in pairs]], [label for _, label in pairs], None, list(range(1, len(pairs) + 1))
    )


# What is read


@pytest.mark.parametrize(
    ("record", "kind", "texts", "labels", "scores"),
    [
        ({"text": "a", "label": "x"}, "labelled", [["a"]], ["x"], None),
        ({"text": "a"}, "plain", [["a"]], None, None),
        ({"anchor": "a", "positive": "b"}, "pairs", [["a"], ["b"]], None, None),
        ({"anchor": "a", "positive": "b", "negative": "c"}, "triplets", [["a"], ["b"], ["c"]], None, None),
        ({"sentence1": "a", "sentence2": "b", "score": 0.5}, "scored", [["a"], ["b"]], None, [0.5]),
        ({"query": "a", "document": "b", "label": 1}, "relevance", [["a"], ["b"]], None, [1.0]),
        ({"query": "a", "document": "b", "label": False}, "relevance", [["a"], ["b"]], None, [0.0]),
    ],
)
def test_each_kind_of_row_is_known_by_its_columns(
    tmp_path: Path,
    record: dict[str, object],
    kind: str,
    texts: list[list[str]],
    labels: list[str] | None,
    scores: list[float] | None,
) -> None:
    rows = read_rows(jsonl(tmp_path, record))
    assert (rows.kind, rows.texts, rows.labels, rows.scores, rows.lines, rows.notes) == (
        kind,
        texts,
        labels,
        scores,
        [1],
        (),
    )


def test_chat_rows_are_text_and_label(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "sort"},
        {"role": "user", "content": "card lost"},
        {"role": "assistant", "content": "lost"},
    ]
    rows = read_rows(jsonl(tmp_path, {"messages": turns}, {"messages": turns[1:]}))
    assert (rows.kind, rows.texts, rows.labels) == ("labelled", [["card lost", "card lost"]], ["lost", "lost"])
    assert rows.notes == ("system turns are not part of the text (first on line 1)",)


def test_the_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    files = [
        jsonl(tmp_path, *LABELLED),
        raw(tmp_path, b"text,label\ncard lost,lost\ncard stolen,stolen\n", "rows.csv"),
        parquet(tmp_path, {"text": ["card lost", "card stolen"], "label": ["lost", "stolen"]}),
    ]
    read = [read_rows(file) for file in files]
    assert [(rows.texts, rows.labels) for rows in read] == [([["card lost", "card stolen"]], ["lost", "stolen"])] * 3
    assert [rows.lines for rows in read] == [[1, 2], [2, 3], [1, 2]]


def test_files_without_a_suffix_are_told_by_their_content(tmp_path: Path) -> None:
    assert read_rows(jsonl(tmp_path, *LABELLED, name="file-1")).kind == "labelled"
    assert read_rows(raw(tmp_path, b"text\na\n", "file-2")).kind == "plain"
    assert read_rows(parquet(tmp_path, {"text": ["a"]}, "file-3")).kind == "plain"
    assert read_rows(raw(tmp_path, b'{"a": 1}\nx\n', "file-4"), format="csv", columns={"text": '{"a": 1}'}).texts == [
        ["x"]
    ]


def test_columns_can_be_mapped_and_others_are_noted(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"utterance": "a", "intent": "x", "id": 1}, {"utterance": "b", "intent": "y", "id": 2})
    rows = read_rows(file, columns={"text": "utterance", "label": "intent"})
    assert (rows.texts, rows.labels) == ([["a", "b"]], ["x", "y"])
    assert rows.notes == ("column 'id' is not used (first on line 1)",)


def test_a_column_that_was_mapped_away_is_not_read_under_its_own_name(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"text": "lost", "label": "my card is gone"})
    rows = read_rows(file, columns={"text": "label", "label": "text"})
    assert (rows.texts, rows.labels) == ([["my card is gone"]], ["lost"])


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    rows = read_rows(raw(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}'))
    assert (rows.texts, rows.lines) == ([["a", "b"]], [1, 4])
    assert read_rows(raw(tmp_path, b"\xef\xbb\xbftext\r\na\r\n", "rows.csv")).texts == [["a"]]


def test_csv_records_may_span_lines_and_use_semicolons(tmp_path: Path) -> None:
    rows = read_rows(raw(tmp_path, b'text;label\n"one\ntwo; three";x\n\nlast;y\n', "rows.csv"))
    assert (rows.texts, rows.labels, rows.lines) == ([["one\ntwo; three", "last"]], ["x", "y"], [2, 5])


def test_csv_texts_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    long = "a word " * 140_000
    assert read_rows(raw(tmp_path, f"text,label\n{long},x\n".encode(), "rows.csv")).texts[0][0].startswith(long[:-1])
    across = (long[:-1] + "\n") * 2
    error = refused(raw(tmp_path, f'text,label\na,x\n"{across}",x\n'.encode(), "rows.csv"))
    assert (error.code, error.line) == ("invalid_csv", 3)


def test_whole_numbers_are_labels_and_noted(tmp_path: Path) -> None:
    rows = read_rows(jsonl(tmp_path, {"text": "a", "label": 3}))
    assert rows.labels == ["3"]
    assert rows.notes == ("labels that are whole numbers are read as text (first on line 1)",)


def test_dictionary_columns_of_parquet_are_text(tmp_path: Path) -> None:
    labels = pa.array(["x", "y", "x"]).dictionary_encode()
    rows = read_rows(parquet(tmp_path, {"text": ["a", "b", "c"], "label": labels, "extra": [[1], [2], [3]]}))
    assert rows.labels == ["x", "y", "x"]
    assert rows.notes == ("column 'extra' is not used (first on row 1)",)


def test_colons_in_values_are_no_duplicate_keys(tmp_path: Path) -> None:
    assert read_rows(jsonl(tmp_path, {"text": 'at 10:30: "label": x', "label": "x"})).labels == ["x"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=4), max_size=4),
    st.text(),
)
@pytest.mark.slow
def test_any_json_is_read_or_refused_by_name(tmp_path: Path, record: dict[str, object], text: str) -> None:
    file = jsonl(tmp_path, record | {"text": text})
    outcome = attempt(file)
    if isinstance(outcome, TextRows):
        assert outcome.texts[0] == [text]
    else:
        assert outcome.code in {
            "empty_text",
            "nul",
            "invalid_json",
            "not_text",
            "ambiguous_row",
            "invalid_label",
            "not_utf8",
        }


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["rows.jsonl", "rows.csv", "rows.parquet", "rows"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, name: str) -> None:
    outcome = attempt(raw(tmp_path, content, name))
    if isinstance(outcome, TextRows):
        assert len(outcome) > 0
    else:
        assert outcome.param == "training_file"
        assert outcome.code


# What is refused


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ('{"text": "a", "label": "x"', "invalid_json", "line 2: expected a JSON object, got text that is no JSON"),
        (
            '["a", "x"]',
            "not_an_object",
            "line 2: expected a JSON object, got an array (one object a line, not one array)",
        ),
        ('"a"', "not_an_object", "line 2: expected a JSON object, got text"),
        (
            '{"text": "a", "label": "x", "text": "b"}',
            "duplicate_key",
            "line 2, column 'text': expected each key once, got it twice",
        ),
        (
            '{"text": "a", "te\\u0078t": "b", "label": "x"}',
            "duplicate_key",
            "line 2, column 'text': expected each key once",
        ),
        (
            '{"text": "a", "label": "x", "more": {"a": 1, "a": 2}}',
            "duplicate_key",
            "line 2, column 'a': expected each key once",
        ),
        ('{"text": 5, "label": "x"}', "not_text", "line 2, column 'text': expected text, got the number 5"),
        ('{"text": null, "label": "x"}', "not_text", "line 2, column 'text': expected text, got null"),
        ('{"text": ["a"], "label": "x"}', "not_text", "line 2, column 'text': expected text, got a list"),
        ('{"text": " \\n", "label": "x"}', "empty_text", "line 2, column 'text': expected text that is not empty"),
        ('{"text": "\\u200b", "label": "x"}', "empty_text", "line 2, column 'text': expected text that is not empty"),
        (
            '{"text": "a\\u0000", "label": "x"}',
            "nul",
            "line 2, column 'text': expected text without NUL characters, got one at character 2",
        ),
        ('{"text": "a", "label": ""}', "empty_label", "line 2, column 'label': expected a label that is not empty"),
        (
            '{"text": "a", "label": 1.5}',
            "invalid_label",
            "line 2, column 'label': expected a label (text or a whole number), got the number",
        ),
        ('{"text": "a", "label": true}', "invalid_label", "got true"),
        (
            '{"text": "a", "label": "%s"}' % ("x" * 257),
            "label_too_long",
            "expected a label of at most 256 characters, got 257",
        ),
        (
            '{"text": "a"}',
            "mixed_row_kinds",
            "line 2: expected text and label as on line 1 (one kind of row a file), got text",
        ),
        ('{"anchor": "a", "positive": "b"}', "mixed_row_kinds", "expected text and label as on line 1"),
        (
            '{"label": "a"}',
            "missing_column",
            "line 2, column 'text': expected columns text and label, got columns 'label'",
        ),
        ("{}", "missing_column", "got no columns"),
        ('{"text": "a", "anchor": "b", "positive": "c"}', "ambiguous_row", "expected the columns of one kind of row"),
        ('{"messages": "hello"}', "invalid_chat", "expected a list of messages (objects), got the text 'hello'"),
        (
            '{"messages": [{"role": "user", "content": "a"}]}',
            "invalid_chat",
            "expected one user and one assistant turn",
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}',
            "invalid_label",
            "messages[assistant].content",
        ),
        ("[" * 5000, "invalid_json", "line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, code: str, message: str) -> None:
    error = refused(jsonl(tmp_path, LABELLED[0], line))
    assert (error.code, error.line, error.param) == (code, 2, "training_file")
    assert message in error.message


@pytest.mark.parametrize(
    ("number", "got"),
    [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ('"0.5"', "the text '0.5'"), ("null", "null")],
)
def test_scores_are_finite_numbers(tmp_path: Path, number: str, got: str) -> None:
    error = refused(jsonl(tmp_path, f'{{"sentence1": "a", "sentence2": "b", "score": {number}}}'))
    assert (error.code, error.line, error.column) == ("invalid_score", 1, "score")
    assert error.message.endswith(f"number, got {got}")


def test_numbers_in_csv_are_numbers_and_nan_is_not(tmp_path: Path) -> None:
    assert read_rows(raw(tmp_path, b"query,document,label\na,b,0.5\n", "rows.csv")).scores == [0.5]
    error = refused(raw(tmp_path, b"query,document,label\na,b,0.5\na,c,nan\n", "rows.csv"))
    assert (error.code, error.message) == ("invalid_score", "line 3, column 'label': expected a finite number, got nan")
    assert refused(raw(tmp_path, b"query,document,label\na,b,yes\n", "rows.csv")).code == "invalid_score"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_no_rows(tmp_path: Path, content: bytes, name: str) -> None:
    assert refused(raw(tmp_path, content, name)).code == "no_rows"


def test_a_header_alone_and_an_empty_table_are_no_rows(tmp_path: Path) -> None:
    assert refused(raw(tmp_path, b"text,label\n", "rows.csv")).code == "no_rows"
    assert refused(parquet(tmp_path, {"text": pa.array([], pa.string())})).code == "no_rows"


def test_a_file_that_is_gone_is_no_crash(tmp_path: Path) -> None:
    error = refused(tmp_path / "gone.jsonl", param="validation_file")
    assert (error.code, error.param) == ("file_not_found", "validation_file")
    assert str(tmp_path) not in error.message


def test_archives_and_pickles_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("rows.jsonl", '{"text": "a"}\n')
    contents = {
        packed.getvalue(): "a ZIP archive",
        b"Rar!\x1a\x07\x01\0" + bytes(90): "a RAR archive",
        b"7z\xbc\xaf\x27\x1c" + bytes(90): "a 7z archive",
        b"a.txt".ljust(257, b"\0") + b"ustar\x0000": "a tar archive",
        pickle.dumps(LABELLED): "a pickle, which is never opened",
        b"\x1f\x8b\x08\x00": "a gzip file",
        '{"text": "a"}'.encode("utf-16"): "UTF-16 text",
    }
    for content, name in contents.items():
        for file in ("rows.jsonl", "rows.csv", "rows.parquet", "rows"):
            error = refused(raw(tmp_path, content, file))
            assert error.code == "wrong_format"
            assert name in error.message
            assert ("save the file as UTF-8" in error.message) == (name == "UTF-16 text")


def test_a_table_named_jsonl_and_lines_named_parquet_are_refused(tmp_path: Path) -> None:
    assert "got a Parquet file" in refused(parquet(tmp_path, {"text": ["a"]}, "rows.jsonl")).message
    assert refused(jsonl(tmp_path, *LABELLED, name="rows.parquet")).code == "wrong_format"
    assert refused(raw(tmp_path, b"PAR1" + b"\0" * 40 + b"PAR1", "rows.parquet")).code == "invalid_parquet"
    assert refused(jsonl(tmp_path, *LABELLED), format="pickle").code == "unknown_format"


def test_a_very_long_line_is_refused_without_being_read(tmp_path: Path) -> None:
    error = refused(jsonl(tmp_path, LABELLED[0], {"text": "a" * 10_000_000, "label": "x"}))
    assert (error.code, error.line) == ("line_too_long", 2)
    assert error.message == "line 2: expected at most 1,048,576 bytes, got more"
    assert refused(raw(tmp_path, b"text\n" + b"a" * 10_000_000, "rows.csv")).code == "line_too_long"
    assert refused(parquet(tmp_path, {"text": ["a", "b" * 2_000_000]})).code == "text_too_long"
    assert len(read_rows(jsonl(tmp_path, {"text": "a" * 100}), max_line_bytes=112)) == 1
    assert refused(jsonl(tmp_path, {"text": "a" * 101}), max_line_bytes=112).code == "line_too_long"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_bytes_that_are_no_utf8_are_named(tmp_path: Path, name: str) -> None:
    first = b'{"text": "a"}\n' if name == "rows.jsonl" else b"text\n"
    error = refused(raw(tmp_path, first + b"caf\xe9\n", name))
    assert error.code == "not_utf8"
    assert error.message.startswith("line 2: expected UTF-8, got the byte 0xe9 at position 4; save the file as UTF-8")
    assert refused(raw(tmp_path, first + b"a\0b\n", name)).code == "nul"


def test_parquet_text_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    text = pa.array([b"a", b"caf\xe9"], pa.binary()).view(pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 2, text.buffers())
    error = refused(parquet(tmp_path, {"text": bad}))
    assert (error.code, error.line, error.column) == ("not_utf8", 2, "text")


def test_nulls_and_numbers_in_parquet_are_named_by_row(tmp_path: Path) -> None:
    error = refused(parquet(tmp_path, {"text": ["a", None], "label": ["x", "y"]}))
    assert error.message == "row 2, column 'text': expected text, got null"
    assert refused(parquet(tmp_path, {"text": [1.5]})).code == "not_text"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"text,label\na,x\nb\n", "ragged_row", "line 3: expected 2 cells as in the header, got 1"),
        (
            b"text,label\nHello, you,x\n",
            "ragged_row",
            "line 2: expected 2 cells as in the header, got 3; texts with a separator",
        ),
        (b"text,text\na,b\n", "duplicate_key", "line 1, column 'text'"),
        (b'text,label\na,x\n"open,y\nb,z\n', "invalid_csv", "line 3: expected CSV"),
        (b"utterance,intent\na,x\n", "missing_column", "got columns 'utterance', 'intent'"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, code: str, message: str) -> None:
    error = refused(raw(tmp_path, content, "rows.csv"))
    assert error.code == code
    assert message in error.message


def test_an_open_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    error = refused(raw(tmp_path, b'text\n"open\n' + b"a line of text\n" * 20_000, "rows.csv"))
    assert (error.code, error.line) == ("invalid_csv", 2)


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"utterance": "text"}, "invalid_columns"),
        ({"text": ""}, "invalid_columns"),
        ({"text": "a", "label": "a"}, "invalid_columns"),
        ({"text": "gone"}, "missing_column"),
    ],
)
def test_a_bad_mapping_is_the_fault_of_columns(tmp_path: Path, columns: dict[str, str], code: str) -> None:
    error = refused(jsonl(tmp_path, *LABELLED), columns=columns)
    assert (error.code, error.param) == (code, "columns")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_task_that_needs_a_column_more_says_what_was_read_and_what_may_be_meant(tmp_path: Path, format: str) -> None:  # noqa: A002
    if format == "parquet":
        file = parquet(tmp_path, {"id": ["1"], "text": ["a"], "lable": ["b"]})
    elif format == "csv":
        file = raw(tmp_path, b"id,text,lable\n1,a,b\n", "rows.csv")
    else:
        file = jsonl(tmp_path, {"id": "1", "text": "a", "lable": "b"})
    error = refused(file, task="classification")
    assert (error.code, error.line, error.column) == ("wrong_row_kind", 2 if format == "csv" else 1, "label")
    place = {"csv": "line 2", "jsonl": "line 1", "parquet": "row 1"}[format]
    expected = f"{place}, column 'label': expected columns text and label for task classification, got columns "
    told = ', of which \'text\' is read as text; others are named in `columns`, such as {"label": "lable"}'
    assert error.message.startswith(expected)
    assert error.message.endswith(told)
    assert read_rows(file, task="classification", columns={"label": "lable"}).labels == ["b"]


@pytest.mark.parametrize(
    ("task", "row", "code", "column", "message"),
    [
        (
            "classification",
            {"text": "a"},
            "wrong_row_kind",
            "label",
            "got columns 'text', of which 'text' is read as text",
        ),
        (
            "classification",
            {"utterance": "a", "intent": "b"},
            "missing_column",
            "text",
            'of which none is read; others are named in `columns`, such as {"text": "utterance", "label": "intent"}',
        ),
        ("embedding", {"anchor": "a", "postive": "b"}, "missing_column", "positive", 'such as {"positive": "postive"}'),
        (
            "embedding",
            {"sentence1": "a", "sentence2": "b", "scor": 1},
            "missing_column",
            "score",
            "expected columns sentence1 and sentence2 and score for task embedding",
        ),
        (
            "embedding",
            {"text": "a", "label": "b"},
            "wrong_row_kind",
            None,
            (
                "task embedding (anchor and positive; anchor and positive and negative; sentence1 and sentence2 and "
                "score), got columns"
            ),
        ),
        ("embedding", {"messages": []}, "wrong_row_kind", None, "got columns 'messages', of which none is read"),
        (
            "rerank",
            {"query": "a", "document": "b", "score": 1},
            "missing_column",
            "label",
            'such as {"label": "score"}',
        ),
        (
            "rerank",
            {"query": "a", "text": "b", "label": "1"},
            "wrong_row_kind",
            "document",
            'such as {"document": "text"}',
        ),
        ("anomaly", {"anchor": "a", "positive": "b"}, "wrong_row_kind", None, "(text and label; text; or messages)"),
    ],
)
def test_each_task_names_the_columns_that_it_takes(
    tmp_path: Path, task: str, row: dict[str, object], code: str, column: str | None, message: str
) -> None:
    error = refused(jsonl(tmp_path, row), task=task)
    assert (error.code, error.line, error.column, error.param) == (code, 1, column, "training_file")
    assert message in error.message


def test_what_is_mapped_already_stays_in_what_is_proposed(tmp_path: Path) -> None:
    error = refused(
        jsonl(tmp_path, {"utterance": "a", "intent": "b"}), task="classification", columns={"text": "utterance"}
    )
    assert "of which 'utterance' is read as text" in error.message
    assert error.message.endswith('such as {"text": "utterance", "label": "intent"}')


def test_names_without_end_are_not_compared(tmp_path: Path) -> None:
    row = {"text": "a"} | {"label" * 200 + str(index): "b" for index in range(300)}
    error = refused(jsonl(tmp_path, row), task="classification")
    assert len(error.message) < 1200
    assert "such as" not in error.message


def test_a_later_row_of_another_kind_is_still_told_by_the_first(tmp_path: Path) -> None:
    assert refused(jsonl(tmp_path, LABELLED[0], {"text": "a"}), task="classification").code == "mixed_row_kinds"


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        (
            "classification",
            {"txt": "x"},
            "expected names among text, label, messages for task classification, got 'txt'",
        ),
        (
            "classification",
            {"anchor": "x"},
            "expected names among text, label, messages for task classification, got 'anchor'",
        ),
        ("rerank", {"text": "x"}, "expected names among query, document, label for task rerank, got 'text'"),
        (
            "embedding",
            {"label": "x"},
            "anchor, positive, negative, sentence1, sentence2, score for task embedding, got 'label'",
        ),
    ],
)
def test_a_column_can_play_the_parts_of_its_task_alone(
    tmp_path: Path, task: str, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(TrainingDataError) as caught:
        check_columns(columns, task)
    assert (caught.value.code, caught.value.param) == ("invalid_columns", "columns")
    assert message in caught.value.message
    check_columns({}, task)


def test_rows_are_capped(tmp_path: Path) -> None:
    assert len(read_rows(jsonl(tmp_path, *LABELLED), max_rows=2)) == 2
    assert refused(jsonl(tmp_path, *LABELLED), max_rows=1).code == "too_many_rows"
    assert refused(parquet(tmp_path, {"text": ["a", "b"]}), max_rows=1).code == "too_many_rows"


# Classes and splits


def test_classes_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(TrainingDataError, match="at least two labels, got only 'x'") as one:
        check_classes(labelled(("a", "x"), ("b", "x")))
    with pytest.raises(TrainingDataError, match="got one for 'y' \\(first on line 3\\)") as rare:
        check_classes(labelled(("a", "x"), ("b", "x"), ("c", "y")))
    assert (one.value.code, rare.value.code, rare.value.line) == ("one_class", "too_few_per_class", 3)


def test_labels_that_only_the_validation_part_has_are_refused() -> None:
    train = labelled(("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))
    with pytest.raises(TrainingDataError, match=r"line 2, column 'label'.*got 'z'") as unknown:
        check_validation(train, labelled(("e", "x"), ("f", "z")))
    with pytest.raises(TrainingDataError, match="expected rows of text and label") as mixed:
        check_validation(train, TextRows("plain", [["e"]], None, None, [1]))
    assert (unknown.value.code, unknown.value.param, mixed.value.code) == (
        "unknown_labels",
        "validation_file",
        "mixed_row_kinds",
    )
    check_validation(train, labelled(("e", "x")))


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("xyz")), min_size=4, max_size=60),
    st.floats(0.05, 0.6),
)
def test_a_split_keeps_rows_and_never_puts_a_text_on_both_sides(pairs: list[tuple[str, str]], share: float) -> None:
    rows = labelled(*pairs, *((f"{label} {number}", label) for label in "xyz" for number in range(2)))
    train, held_out = split_rows(rows, held_out=share)
    assert sorted(train.lines + held_out.lines) == rows.lines
    assert not {normalized(text) for text in train.texts[0]} & {normalized(text) for text in held_out.texts[0]}
    assert len(train)
    assert len(held_out)
    again = split_rows(rows, held_out=share)
    assert (again[0].lines, again[1].lines) == (train.lines, held_out.lines)


def test_a_split_is_stratified() -> None:
    rows = labelled(
        *((f"{label} {number}", label) for label, count in (("x", 80), ("y", 40), ("z", 4)) for number in range(count))
    )
    train, held_out = split_rows(rows, held_out=0.25)
    assert Counter(held_out.labels) == {"x": 20, "y": 10, "z": 1}
    assert len(train) == 93


def test_what_was_trained_on_is_not_held_out_when_rows_are_added() -> None:
    before = labelled(*((f"{label} {number}", label) for label in "xy" for number in range(200)))
    after = labelled(*((f"{label} {number}", label) for label in "yx" for number in range(219, -1, -1)))
    trained = set(split_rows(before, held_out=0.2)[0].texts[0])
    held = set(split_rows(after, held_out=0.2)[1].texts[0])
    assert len(held) == 88
    assert len(held & trained) <= 8, "only those that the larger part makes room for"


def test_a_text_repeated_often_does_not_fill_the_held_out_part() -> None:
    rows = TextRows(
        "plain", [["same"] * 50 + [f"text {number}" for number in range(50)]], None, None, list(range(1, 101))
    )
    assert len(split_rows(rows, held_out=0.1)[1]) == 10


def test_queries_stay_on_one_side() -> None:
    rows = TextRows(
        "relevance",
        [[f"query {number // 4}" for number in range(40)], [f"d{number}" for number in range(40)]],
        None,
        [1.0] * 40,
        [*range(40)],
    )
    train, held_out = split_rows(rows, held_out=0.2)
    assert not set(train.texts[0]) & set(held_out.texts[0])
    assert len(held_out) == 8


def test_nothing_can_be_held_out_of_one_text() -> None:
    with pytest.raises(TrainingDataError) as caught:
        split_rows(TextRows("plain", [["Same", "same!"]], None, None, [1, 2]), held_out=0.5)
    assert caught.value.code == "too_few_rows"
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_rows(labelled(("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")), held_out=1.0)


@pytest.mark.parametrize("task", [None, "classification"])
def test_a_chat_under_another_name_is_told_about_messages(tmp_path: Path, task: str | None) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file = jsonl(tmp_path, {"id": 1, "conversation": chat})
    error = refused(file, task=task)
    assert error.column == "conversation"
    assert "expected a chat in column messages" in error.message
    assert error.message.endswith('name it in `columns`, such as {"messages": "conversation"}')
    assert read_rows(file, task=task, columns={"messages": "conversation"}).labels == ["b"]


def test_lists_that_are_no_chat_and_tasks_without_chats_are_not_told_about_messages(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for task, value in (("rerank", chat), ("classification", [{"name": "a"}]), ("classification", [])):
        assert "a chat in column" not in refused(jsonl(tmp_path, {"conversation": value}), task=task).message
