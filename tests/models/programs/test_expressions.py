from __future__ import annotations

from pathlib import Path

import pytest

from models.programs.expressions import NotInGrammar, parse


@pytest.mark.parametrize(
    ("text", "sizes", "value"),
    [
        ("Symbol('s77', positive=True, integer=True)", {"s77": 3}, 3),
        ("Mul(Integer(2), Symbol('s77', positive=True, integer=True))", {"s77": 3}, 6),
        ("FloorDiv(Symbol('s1'), 8) + -2", {"s1": 24}, 1),
        ("CeilDiv(s1, 8) - 1", {"s1": 17}, 2),
        ("(L['x'].size()[1] % 8) == 0", {"x[1]": 16}, True),
        ("(L['x'].size()[1] % 8) == 0", {"x[1]": 17}, False),
        ("max(1, L['args'][0].size()[1] // 8) != 1 and not 1 > 2", {"args_0[1]": 16}, True),
        ("1 <= L['x'].size()[0] < 5", {"x[0]": 5}, False),
    ],
)
def test_arithmetic_of_sizes_has_its_value(text: str, sizes: dict[str, int], value: int) -> None:
    expression = parse(text)
    assert expression.value(sizes) == value
    assert expression.symbols == sizes.keys()


def test_a_bare_symbol_is_known_as_one() -> None:
    assert parse("Symbol('s0', integer=True)").symbol == "s0"
    assert parse("s0 + 1").symbol is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {canary}')",
        "Symbol(__import__('os').system('touch {canary}'))",
        "Max(*[open('{canary}', 'w')])",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "s0.__class__",
        "L['x'].__class__()[0]",
        "L[open('{canary}', 'w')].size()[0]",
        "Integer('1')",
        "2 ** 2 ** 2 ** 99",
        "1 if s0 else 2",
        "s0; s1",
        "f'{{s0}}'",
        "",
        "(" * 900,
        "-" * 1999 + "1",
        "s0 +" * 4000,
        "s0\0",
    ],
)
def test_what_is_no_arithmetic_of_sizes_is_refused_and_not_run(text: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(NotInGrammar):
        parse(text.replace("{canary}", str(canary)))
    assert not canary.exists()


def test_sizes_are_64_bit_integers() -> None:
    with pytest.raises(OverflowError):
        parse("*".join(["s0"] * 10)).value({"s0": 2**40})
    with pytest.raises(ZeroDivisionError):
        parse("1 // s0").value({"s0": 0})
