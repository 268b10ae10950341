"""What a refusal of a tensor's fields says, and what it costs."""

from __future__ import annotations

import pytest

from service.api.schemas.open_inference import InferBody
from service.api.tensors import refusals
from service.api.tensors.data import decode_body
from service.errors import InvalidRequest


@pytest.mark.parametrize(("most_read", "said"), [(2**18, "length <= 64, got 65 items"), (300, "length <= 64")])
def test_a_large_body_is_not_read_once_more(most_read: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_MOST_READ", most_read)
    shape = b",".join([b"1000"] * 65)
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [%s], "data": []}]}' % shape
    with pytest.raises(InvalidRequest) as raised:
        decode_body(body, InferBody)
    assert str(raised.value).endswith(said)


@pytest.mark.parametrize(
    "rest",
    [
        b"",  # the body ends
        b", garbage",
        b'], "inputs": 3}',
        b'], "inputs": {}}',
        b'], "inputs": [[]]}',
        b'], "inputs": [{"shape": []}]}',
        b', "data": %s' % (b"[" * 100_000),
    ],
)
def test_what_is_wrong_behind_a_refused_field_does_not_hide_it(rest: bytes) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, -2]%s' % rest
    with pytest.raises(InvalidRequest, match=r"^inputs\[0\].shape\[1\]: expected `int` >= 0"):
        decode_body(body, InferBody)
