"""A stream's state as a text: it comes back whole, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from models.sensors.model import MOST_STATE_BYTES, State
from service.errors import BackendError, InvalidState
from service.serving.stream_state import MAX_CHARACTERS, StreamPosition, seal, unseal

STATE: State = {
    "window": np.arange(6, dtype=np.float64).reshape(3, 2),
    "level": np.array([0.1, -2.5e300]),
    "empty": np.empty((0, 2)),
}


def test_it_comes_back_bit_by_bit() -> None:
    text = seal(STATE, "abc", StreamPosition(1_795_000_000.25, followed=True))
    state, clock = unseal(text, "abc")
    assert clock == StreamPosition(1_795_000_000.25, followed=True)
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        assert state[name].dtype == np.float64
        assert np.array_equal(state[name], array)
    assert seal(state, "abc", clock) == text


def test_it_may_be_changed_by_who_gets_it() -> None:
    state, _ = unseal(seal(STATE, "abc", StreamPosition()), "abc")
    state["level"][0] = 7.0
    assert state["level"][0] == 7.0


def test_it_is_text_that_goes_anywhere() -> None:
    assert set(seal(STATE, "abc", StreamPosition())) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


def test_the_largest_one_fits_and_a_larger_one_is_never_written() -> None:
    largest = {f"part{number}": np.ones(MOST_STATE_BYTES // 64) for number in range(8)}
    assert len(seal(largest, "abc", StreamPosition(1.5))) <= MAX_CHARACTERS
    with pytest.raises(BackendError, match="65544 bytes, 65536 are allowed"):
        seal({**largest, "more": np.ones(1)}, "abc", StreamPosition(1.5))


@pytest.mark.parametrize("place", [0, 1, 5, 20, 30, 60, -1])
def test_one_changed_character_is_seen(place: int) -> None:
    text = seal(STATE, "abc", StreamPosition(3.0))
    changed = list(text)
    changed[place] = "A" if text[place] != "A" else "w"
    with pytest.raises(InvalidState):
        unseal("".join(changed), "abc")


@pytest.mark.parametrize(
    ("text", "digest", "why"),
    [
        (seal(STATE, "abc", StreamPosition()), "abd", "another model or version"),
        (seal(STATE, "abc", StreamPosition())[:-8], "abc", "it was changed"),
        ("", "abc", "does not write this format"),
        ("Ag", "abc", "does not write this format"),
        ("not base64!", "abc", "not base64url"),
        ("ä", "abc", "not base64url"),
        ("A" * (MAX_CHARACTERS + 1), "abc", "are allowed"),
    ],
)
def test_what_it_did_not_write_is_refused(text: str, digest: str, why: str) -> None:
    with pytest.raises(InvalidState, match=why) as caught:
        unseal(text, digest)
    assert caught.value.param == "state"
