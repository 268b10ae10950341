"""Frames arrive whole, however the bytes are cut, and errors keep their kind."""

from __future__ import annotations

import struct

import pytest

from models.errors import ModelError, ModelOutOfMemory, SondeError
from service.engine.frames import (
    MAX_FRAME_BYTES,
    Cancel,
    Failed,
    FrameBuffer,
    FrameTooLong,
    Rows,
    encode,
    error_of,
    failure,
    to_engine,
    to_front,
)
from service.errors import BackendError, CapacityError, DeadlineExceeded, InvalidOutput, Overloaded, Unavailable


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_frames_come_out_whole_whatever_arrives_at_once(step: int) -> None:
    rows = [Rows(number, bytes(range(number)), 0.5, 0.25, 10.0) for number in range(5)]
    sent, buffer = b"".join(map(encode, rows)), FrameBuffer()
    received = [to_front.decode(body) for at in range(0, len(sent), step) for body in buffer.feed(sent[at : at + step])]
    assert received == rows
    assert not buffer.torn


def test_a_frame_without_its_end_is_torn() -> None:
    buffer = FrameBuffer()
    assert list(buffer.feed(encode(Cancel(1))[:-1])) == []
    assert buffer.torn


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameTooLong, match=f"{MAX_FRAME_BYTES + 1} bytes"):
        list(FrameBuffer().feed(struct.pack("<I", MAX_FRAME_BYTES + 1)))


def test_frames_before_a_too_long_one_still_count() -> None:
    frames = FrameBuffer(limit=10).feed(encode(Cancel(1)) + struct.pack("<I", 11))
    assert to_engine.decode(next(frames)) == Cancel(1)
    with pytest.raises(FrameTooLong):
        next(frames)


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full", retry_after_s=7),
        Unavailable("loading", param="model", retry_after_s=3),
        DeadlineExceeded("late"),
        ModelOutOfMemory("too large"),
        InvalidOutput("NaN"),
        ModelError("no"),
    ],
)
def test_an_error_arrives_as_what_it_was(error: SondeError) -> None:
    frame = to_front.decode(encode(failure(4, error))[4:])
    assert isinstance(frame, Failed)
    found = error_of(frame)
    assert (type(found), found.message, found.param) == (type(error), error.message, error.param)
    if isinstance(error, CapacityError):
        assert isinstance(found, CapacityError)
        assert found.retry_after_s == error.retry_after_s


def test_an_error_of_another_library_tells_the_front_nothing_of_it() -> None:
    frame = failure(1, KeyError("secret"))
    assert "secret" not in frame.message
    assert isinstance(error_of(frame), BackendError)
