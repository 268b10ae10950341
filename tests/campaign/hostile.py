"""Bodies and files that cost more than their bytes, made on demand."""

from __future__ import annotations

import base64
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.support import images

MODEL = "all-MiniLM-L6-v2"
PROGRAM = "mlp"
IMAGES = "image-default"
MB = 2**20
JSON = "application/json"
FORM = "multipart/form-data; boundary=cut"


@dataclass(frozen=True, slots=True)
class Body:
    """A request: its name, its path, its content type, and a function that makes its bytes."""

    name: str
    path: str
    make: Callable[[], bytes]
    content_type: str = JSON
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class File:
    """A training file: its name and a function that makes its bytes."""

    name: str
    make: Callable[[], bytes]


def bodies() -> list[Body]:
    """Every body: broken JSON on each route, and values that are costly where they are read."""
    makers = (
        _broken_on_each_route,
        _costly_texts,
        _costly_values,
        _costly_forms,
        _costly_addresses,
        _costly_tensors,
        _costly_images,
    )
    return [body for make in makers for body in make()]


def files() -> list[File]:
    """Every file: tables and texts in each format."""
    return [*_tables(), *_lines(), *_parquets(), *_disguises()]


ROUTES = (
    "/v1/embeddings",
    "/v1/classify",
    "/v1/anomaly/score",
    "/v1/forecast",
    "/v1/rerank",
    "/tokenize",
    "/similarity",
    "/v1/fine_tuning/jobs",
    "/v1/feedback",
    f"/v2/models/{MODEL}/infer",
    "/v2/repository/index",
)
BROKEN: dict[str, Callable[[], bytes]] = {
    "arrays 1 M deep": lambda: b"[" * MB,
    "objects 100,000 deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "1 M unknown keys": lambda: b"{" + b",".join(b'"k%d":1' % number for number in range(MB)) + b"}",
    "a number of 1 M digits": lambda: b'{"model": ' + b"9" * MB + b"}",
    "not UTF-8": lambda: b'{"model": "\xff\xfe"}',
    "cut off": lambda: b'{"model": "' + b"a" * MB,
    "17 MB of spaces": lambda: b" " * (17 * MB),
}


def _broken_on_each_route() -> Iterator[Body]:
    for route, (name, make) in itertools.product(ROUTES, BROKEN.items()):
        yield Body(f"{name} to {route}", route, make)


def _of(**fields: object) -> bytes:
    return json.dumps({"model": MODEL, **fields}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _costly_texts() -> Iterator[Body]:
    """Texts of three quarters of a megabyte and more, in one or in many."""
    texts = {
        "two runs of combining marks": "a" + "\u0315" * 75_000 + "\u0327" * 75_000,
        "sorted combining marks": "a" + "\u0327\u0315" * 75_000,
        "many short runs of marks": ("a" + "\u0315\u0327" * 30) * 10_000,
        "Hangul syllables in parts": "\u1100\u1161\u11a8" * 100_000,
        "ligatures that grow 18-fold": "\ufdfa" * 200_000,
        "one word of 1 M letters": "a" * MB,
        "emoji joined by ZWJ": "\U0001f468\u200d" * 100_000,
        "spaces alone": " " * MB,
        "control characters": "\x01" * MB,
        "words of one letter": "a " * (MB // 2),
        "punctuation": "!?" * (MB // 2),
        "Chinese characters": "漢" * (MB // 3),
        "NUL": "\0" * 1000,
    }
    for name, text in texts.items():
        yield Body(f"{name}, one", "/v1/embeddings", lambda text=text: _of(input=text))  # type: ignore[misc]
        yield Body(f"{name}, eight", "/v1/embeddings", lambda text=text: _of(input=[text[: MB // 4]] * 8))  # type: ignore[misc]
    labelled = {"labels": {f"label {number}": "x" for number in range(1000)}}
    yield Body("1,000 labels", "/v1/classify", lambda: _of(input="a", **labelled))
    yield Body("a lone surrogate", "/v1/embeddings", lambda: b'{"model": "%b", "input": "\\ud800"}' % MODEL.encode())


def _costly_values() -> Iterator[Body]:
    """Lists and objects of a million values and more."""
    score, jobs = "/v1/anomaly/score", "/v1/fine_tuning/jobs"
    yield Body("4 M token ids", "/v1/embeddings", lambda: _raw(_list(b"1", 4 * MB)))
    yield Body("1 M lists of one token", "/v1/embeddings", lambda: _raw(_list(b"[1]", MB)))
    yield Body("4 M texts", "/v1/embeddings", lambda: _raw(_list(b'""', 4 * MB)))
    yield Body("1.5 M labels", "/v1/classify", lambda: _raw(b'"a"', labels=_list(b'"l"', 1_500_000)))
    yield Body("1.5 M references", score, lambda: _raw(b'"a"', reference=_list(b'"l"', 1_500_000)))
    yield Body("1 M documents", "/v1/rerank", lambda: _raw(b'"a"', query=b'"q"', documents=_list(b'"l"', MB)))
    yield Body("3 M readings", score, lambda: _raw(b'"a"', series=_list(b"[1]", 3 * MB)))
    yield Body("a reading of 4 M columns", score, lambda: _raw(b'"a"', series=_list(_list(b"1", 4 * MB), 1)))
    yield Body("readings of many digits", score, lambda: _raw(b'"a"', series=_list(b"[%b]" % (b"1" * 300), 40_000)))
    yield Body("1 M records", score, lambda: _raw(b'"a"', records=_list(b'{"a":1}', MB)))
    yield Body("4 M timestamps", "/v1/forecast", lambda: _raw(b'"a"', timestamps=_list(b"1", 4 * MB)))
    yield Body("a state of 8 MB", score, lambda: _raw(b'"a"', series=b"[[1]]", state=b'"%b"' % (b"A" * 8 * MB)))
    yield Body("metadata of 1 M keys", jobs, lambda: _raw(b'"a"', metadata=BROKEN["1 M unknown keys"]()))
    yield Body("a suffix of 8 MB", jobs, lambda: _of(training_file="file-1", suffix="a" * (8 * MB)))


def _list(value: bytes, count: int) -> bytes:
    return b"[" + b",".join([value] * count) + b"]"


def _raw(value: bytes, **more: bytes) -> bytes:
    """A body with values that are JSON already."""
    fields = {"model": b'"%b"' % MODEL.encode(), "input": value, **more}
    return b"{" + b", ".join(b'"%b": %b' % (name.encode(), content) for name, content in fields.items()) + b"}"


def _costly_forms() -> Iterator[Body]:
    part = b'--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    yield Body("10,000 parts", "/v1/files", lambda: part % (b"a", b"b") * 10_000, FORM)
    yield Body("a header of 8 MB", "/v1/files", lambda: b"--cut\r\n" + b"a" * (8 * MB), FORM)
    yield Body("a boundary in each line", "/v1/files", lambda: b"--cut\r\n" * MB, FORM)
    yield Body("almost boundaries", "/v1/files", lambda: part % (b"file", b"\r\n--cu" * MB), FORM)
    yield Body("a value of 8 MB", "/v1/files", lambda: part % (b"purpose", b"x" * (8 * MB)), FORM)
    yield Body("no boundary", "/v1/files", lambda: b"x" * MB, "multipart/form-data")
    yield Body("gzip", "/v1/embeddings", lambda: b"\x1f\x8b" + b"\0" * MB, "application/gzip")


def _costly_addresses() -> Iterator[Body]:
    jobs = "/v1/fine_tuning/jobs"
    yield Body("the first OpenAPI document", "/openapi.json", bytes, method="GET")
    metadata = "&".join(f"metadata[k{number}]=v" for number in range(3000))
    yield Body("3,000 filters", f"{jobs}?{metadata}", bytes, method="GET")
    yield Body("a name of 8,000 letters", "/v1/models/" + "a" * 8000, bytes, method="GET")
    yield Body("a limit of 1,000 digits", f"{jobs}?limit={'9' * 1000}", bytes, method="GET")
    yield Body("%00 in a name", "/v1/models/%00", bytes, method="GET")
    yield Body("dots", "/v1/files/" + "..%2f" * 200, bytes, method="GET")
    yield Body("colons", "/v1/models/ft" + ":" * 4000, bytes, method="GET")


def _costly_tensors() -> Iterator[Body]:
    """Tensors of the Open Inference Protocol."""
    program, texts = f"/v2/models/{PROGRAM}/infer", f"/v2/models/{MODEL}/infer"
    numbers, empty = _list(b"1", 7 * MB), _list(b'""', 4 * MB)
    yield Body("7 M numbers for 16", program, lambda: _tensor(numbers))
    yield Body("7 M numbers as they say", program, lambda: _tensor(numbers, shape=b"[458752,16]"))
    yield Body("a shape of 7 M sizes", program, lambda: _tensor(b"[1]", shape=numbers))
    yield Body("a shape of 2^2,400 values", program, lambda: _tensor(b"[1]", shape=_list(b"1099511627776", 60)))
    yield Body("a size of 1 M digits", program, lambda: _tensor(b"[1]", shape=b"[%b]" % (b"9" * MB)))
    yield Body("200,000 inputs", program, lambda: b'{"inputs":%b}' % _list(b'{"name":"x","datatype":"FP32"}', 200_000))
    yield Body("1 M outputs", program, lambda: b'{"inputs":[],"outputs":%b}' % _list(b'{"name":"x"}', MB))
    yield Body("an id 1 M times", program, lambda: b"{" + b'"id":"a",' * MB + b'"inputs":[]}')
    yield Body("data 8 M deep", program, lambda: _tensor(b"[" * (7 * MB) + b"]" * (7 * MB)))
    yield Body("a number too large", program, lambda: _tensor(b"[1e999%b]" % (b",1" * 15)))
    yield Body("4 M empty texts", texts, lambda: _tensor(empty, name=b"text", datatype=b"BYTES", shape=b"[2048]"))
    yield Body("a tensor of one long text", texts, lambda: _text_tensor(b"a " * (7 * MB)))
    yield Body("a tensor of escapes", texts, lambda: _text_tensor(b"\\u00e9" * (2 * MB)))
    ranked = b'"outputs":[{"name":"embedding","parameters":{"classification":384}}]'
    words = b"[" + b",".join(b'"w%d"' % number for number in range(2048)) + b"]"
    yield Body("786,432 best values", texts, lambda: _tensor(words, ranked, b"text", b"BYTES", b"[2048]"))


def _tensor(
    data: bytes, more: bytes = b"", name: bytes = b"x", datatype: bytes = b"FP32", shape: bytes = b"[1,16]"
) -> bytes:
    one = b'{"name":"%b","datatype":"%b","shape":%b,"data":%b}' % (name, datatype, shape, data)
    return b'{"inputs":[%b]%b}' % (one, b"," + more if more else b"")


def _text_tensor(text: bytes) -> bytes:
    return _tensor(b'["%b"]' % text, name=b"text", datatype=b"BYTES", shape=b"[1]")


def _costly_images() -> Iterator[Body]:
    """Images of many parts and of many pixels, and many in one body."""
    large = images.encoded(Image.new("RGBA", (6000, 6600)))
    many_parts = {name: make() for name, make in images.MANY_PARTS.items()}
    for name, image in {**many_parts, **images.hostile(), "40 M pixels": large}.items():
        yield Body(f"image: {name}", "/v1/embeddings", lambda image=image: _images(base64.b64encode(image)))  # type: ignore[misc]
    yield Body("40 M pixels, 80 times", "/v1/embeddings", lambda: _images(base64.b64encode(large), 80))
    yield Body("base64 of 15 MB", "/v1/embeddings", lambda: _images(b"A" * (15 * MB)))
    yield Body("a data URI of spaces", "/v1/embeddings", lambda: _images(b"data:image/png;base64," + b" " * (15 * MB)))
    yield Body("1 M images of one letter", "/v1/embeddings", lambda: _images(b"A", MB))


def _images(text: bytes, count: int = 1) -> bytes:
    """A body with an image in base64, `count` times."""
    return b'{"model":"%b","modality":"image","input":%b}' % (IMAGES.encode(), _list(b'"%b"' % text, count))


def _tables() -> Iterator[File]:
    header, rows = b"text,label\n", b"a card,lost\nmoney,refund\n" * 100
    yield File("quote-without-end.csv", lambda: header + b'"' + b"a,b\n" * MB)
    yield File("one-cell-of-16-mb.csv", lambda: header + b"a" * (16 * MB) + b",b\n")
    yield File("a-million-columns.csv", lambda: b",".join(b"c%d" % n for n in range(MB)) + b"\n" + b"1," * MB)
    yield File("a-million-empty-lines.csv", lambda: header + b"\n" * MB)
    yield File("nul.csv", lambda: header + b"\0" * MB)
    yield File("utf-16.csv", lambda: (header + rows).decode().encode("utf-16"))
    yield File("latin-1.csv", lambda: header + b"\xe9\xe8,\xff\n" * 1000)
    yield File("quotes.csv", lambda: header + b'""""""""""""""""' * MB)
    yield File("a-label-a-row.csv", lambda: header + b"".join(b"t%d,l%d\n" % (n, n) for n in range(200_000)))
    yield File("marks.csv", lambda: header + ("a" + "\u0315" * 75_000 + "\u0327" * 75_000 + ",b\n").encode())
    yield File("separators.csv", lambda: b"a;b\tc,d|e\n" + b";,\t|\n" * MB)
    yield File("returns.csv", lambda: header + b"a,b\r" * MB)
    yield File("formula.csv", lambda: header + b"=cmd|' /C calc'!A0,b\n" * 1000)
    yield File("numbers.csv", lambda: b"a,b\n" + b"1e999,nan\n" * 100_000)
    yield File("long-numbers.csv", lambda: b"a,b\n" + b"9" * MB + b",1\n")
    yield File("timestamps.csv", lambda: b"timestamp,a\n" + b"9999-99-99T99:99:99,1\n" * 10_000)


def _lines() -> Iterator[File]:
    row = b'{"text": "a", "label": "b"}\n'
    yield File("deep.jsonl", lambda: b"[" * MB + b"\n")
    yield File("deep-objects.jsonl", lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n")
    yield File("many-keys.jsonl", lambda: b"{" + b",".join(b'"k%d":1' % n for n in range(MB)) + b"}\n")
    yield File("the-same-key.jsonl", lambda: b"{" + b'"text":"a",' * MB + b'"label":"b"}\n')
    yield File("one-line-of-32-mb.jsonl", lambda: b'{"text": "' + b"a" * (32 * MB) + b'", "label": "b"}\n')
    yield File("surrogates.jsonl", lambda: b'{"text": "\\ud800", "label": "b"}\n' * 1000)
    yield File("a-million-digits.jsonl", lambda: b'{"text": "a", "label": ' + b"9" * MB + b"}\n")
    yield File("no-line-end.jsonl", lambda: row.strip() * 10_000)
    yield File("nothing-but-spaces.jsonl", lambda: b" " * (16 * MB))
    yield File("bom.jsonl", lambda: b"\xef\xbb\xbf" + row * 100)
    yield File("nan.jsonl", lambda: b'{"text": NaN, "label": Infinity}\n' * 1000)
    yield File("many-turns.jsonl", lambda: b'{"messages": [' + b'{"role":"user","content":"a"},' * 200_000 + b"{}]}\n")
    yield File("new-keys.jsonl", lambda: b"".join(b'{"text":"a","label":"b","k%d":1}\n' % n for n in range(50_000)))
    yield File("wide-lists.jsonl", lambda: b'{"text": "a", "label": [' + b'"l",' * MB + b'"m"]}\n')


def _parquets() -> Iterator[File]:
    yield File("long-text.parquet", lambda: _parquet({"text": _repeated("x" * (16 * MB), 100), "label": ["b"] * 100}))
    yield File(
        "many-texts.parquet", lambda: _parquet({"text": _repeated("x" * 1000, 2 * MB), "label": _repeated("b", 2 * MB)})
    )
    yield File("numbers.parquet", lambda: _parquet({f"v{n}": _repeated(1.0, MB) for n in range(100)}))
    yield File("cut-off.parquet", lambda: _parquet({"text": ["a"] * 1000, "label": ["b"] * 1000})[:-20])
    yield File("footer-of-4-gb.parquet", lambda: b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\xffPAR1")
    yield File("zeros.parquet", lambda: b"PAR1" + b"\0" * MB + b"\x10\0\0\0PAR1")
    yield File("nested.parquet", lambda: _parquet({"text": [[["a"]] * 10_000] * 10, "label": ["b"] * 10}))
    yield File("binary.parquet", lambda: _parquet({"text": [b"\xff\xfe"] * 100, "label": [b"\0"] * 100}))


def _disguises() -> Iterator[File]:
    """Files of one kind under the name of another."""
    yield File("zip.csv", lambda: _zip(64 * MB))
    yield File("zip.jsonl", lambda: _zip(64 * MB))
    yield File("zip.parquet", lambda: _zip(64 * MB))
    yield File("gzip.jsonl", lambda: b"\x1f\x8b\x08" + b"\0" * MB)
    yield File("pickle.jsonl", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    yield File("html.csv", lambda: b"<html>" + b"<b>" * MB)
    yield File("elf.parquet", lambda: b"\x7fELF" + b"\0" * MB)
    yield File("empty.csv", bytes)
    yield File("empty.parquet", bytes)


def _repeated(value: object, count: int) -> pa.Array:
    """A column of one value many times, which a file keeps once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def _parquet(columns: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def _zip(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"\0" * size)
    return stream.getvalue()
