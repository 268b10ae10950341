"""No message quotes pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.validation_messages import describe_fault


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1, le=9)
    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    name: str = Field("a", min_length=1, max_length=3, pattern="^[a-z]+$")
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    rows: list[int] = Field(default=[], max_length=2)
    about: dict[str, int] = {}
    other: int | str = 1
    own: int = 0

    @field_validator("own")
    @classmethod
    def _refuse(cls, value: int) -> int:
        raise ValueError("expected what we say")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"more": 1}, "no such field"),
        ({"count": "x"}, "expected an integer"),
        ({"count": 0}, "expected greater than or equal to 1"),
        ({"share": 1.0}, "expected less than 1"),
        ({"share": float("nan")}, "expected a finite number"),
        ({"name": ""}, "expected at least 1 character"),
        ({"name": "1"}, "expected text of the pattern '^[a-z]+$'"),
        ({"name": 1}, "expected a string"),
        ({"flag": "maybe"}, "expected a boolean"),
        ({"kind": "c"}, "expected 'a' or 'b'"),
        ({"rows": [1, 2, 3]}, "expected at most 2 items, not 3"),
        ({"rows": 1}, "expected a list"),
        ({"about": 1}, "expected a dictionary"),
        ({"own": 1}, "expected what we say"),
    ],
)
def test_messages_say_what_was_expected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate(given)
    assert describe_fault(caught.value.errors()[0]) == message


def test_a_missing_field_is_named_by_its_caller() -> None:
    class Needy(BaseModel):
        needed: int

    with pytest.raises(ValidationError) as caught:
        Needy.model_validate({})
    assert describe_fault(caught.value.errors()[0]) == "expected a value, got none"


def test_what_is_no_object_is_told_in_the_words_of_json() -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate([], from_attributes=True)
    assert describe_fault(caught.value.errors()[0]) == "expected an object"
