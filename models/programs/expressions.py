"""Symbolic sizes: a small grammar of integers, in place of sympy, which would run what it reads.

Shapes have `Symbol('s77', positive=True, integer=True)`, conditions of a program `L['x'].size()[1] % 8 == 0`. Both are
parsed as Python without running it, and only the nodes below are known.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

_MAX_CHARACTERS = 2_000
# Sizes are 64-bit integers.
_LARGEST = 2**63
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
# Functions of sympy that are operators of Python.
_OPERATORS: dict[str, ast.operator] = {
    "Add": ast.Add(),
    "Mul": ast.Mult(),
    "FloorDiv": ast.FloorDiv(),
    "CleanDiv": ast.FloorDiv(),
    "Mod": ast.Mod(),
    "PythonMod": ast.Mod(),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "Max": max,
    "Min": min,
    "max": max,
    "min": min,
    "CeilDiv": lambda a, b: -(-a // b),
    "Eq": operator.eq,
    "Ne": operator.ne,
    "Lt": operator.lt,
    "Le": operator.le,
    "Gt": operator.gt,
    "Ge": operator.ge,
}


class NotInGrammar(ValueError):
    """An expression has something that is no arithmetic of sizes."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Arithmetic of sizes. `symbols` are the names in it; a size of an input is called `input[dimension]`.

    `text` is for people, and `parse` reads `source`.
    """

    source: str
    text: str
    symbols: frozenset[str]
    _node: ast.expr

    @property
    def symbol(self) -> str | None:
        """The expression's name, if it is nothing else."""
        return self._node.id if isinstance(self._node, ast.Name) else None

    def value(self, sizes: Mapping[str, int]) -> int:
        """The value with these sizes. Raises ArithmeticError where it has none."""
        return _value(self._node, sizes)


def parse(text: str) -> Expression:
    """Parse an expression. Raises NotInGrammar."""
    if len(text) > _MAX_CHARACTERS:
        raise NotInGrammar(f"expected at most {_MAX_CHARACTERS:,} characters, got {len(text):,}")
    try:
        node = _plain(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NotInGrammar(f"expected arithmetic of sizes, got {text[:80]!r}") from error
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return Expression(text, ast.unparse(node), frozenset(names - _FUNCTIONS.keys()), node)


def _plain(node: ast.expr) -> ast.expr:
    """The expression with names for its symbols, once all its nodes are known."""
    match node:
        case ast.Constant(value=int()):
            return node
        case ast.Name(id=name) if name.isidentifier() and name not in _FUNCTIONS:
            return node
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not() as sign, operand=inner):
            return ast.UnaryOp(sign, _plain(inner))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return ast.BinOp(_plain(left), sign, _plain(right))
        case ast.Compare(left=left, ops=signs, comparators=rest) if all(type(sign) in _COMPARISONS for sign in signs):
            return ast.Compare(_plain(left), signs, [_plain(one) for one in rest])
        case ast.BoolOp(op=sign, values=values):
            return ast.BoolOp(sign, [_plain(one) for one in values])
        case _:
            return _plain_call(node)


def _plain_call(node: ast.expr) -> ast.expr:
    """A function of sizes, a symbol by sympy's name of it, or a size of an input, as `_plain` gives them."""
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]) if name.isidentifier():
            return ast.Name(name)
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _plain(inner)
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as arguments, keywords=[]) if name in _OPERATORS:
            return reduce(lambda left, right: ast.BinOp(left, _OPERATORS[name], right), map(_plain, arguments))
        case ast.Call(func=ast.Name(id=name) as function, args=[_, *_] as arguments, keywords=[]) if name in _FUNCTIONS:
            return ast.Call(function, [_plain(one) for one in arguments], [])
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=source, attr="size"), args=[], keywords=[]),
            slice=ast.Constant(value=int(dimension)),
        ):
            return ast.Name(f"{_input_name(source)}[{dimension}]")
        case _:
            raise NotInGrammar("unknown node")


def _input_name(node: ast.expr) -> str:
    """The input that `L['batch'][0]` is about, named as torch.export names its placeholder."""
    parts: list[Any] = []
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        parts.append(node.slice.value)
        node = node.value
    if not (isinstance(node, ast.Name) and node.id == "L" and parts):
        raise NotInGrammar("unknown source")
    return "_".join(str(part) for part in reversed(parts))


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            result = number
        case ast.Name(id=name):
            result = sizes[name]
        case ast.UnaryOp(op=sign, operand=inner):
            operand = _value(inner, sizes)
            result = not operand if isinstance(sign, ast.Not) else -operand if isinstance(sign, ast.USub) else operand
        case ast.BinOp(left=left, op=sign, right=right):
            result = _BINARY[type(sign)](_value(left, sizes), _value(right, sizes))
        case ast.Compare(left=left, ops=signs, comparators=rest):
            terms = [_value(one, sizes) for one in (left, *rest)]
            result = all(_COMPARISONS[type(sign)](a, b) for sign, a, b in zip(signs, terms, terms[1:], strict=False))
        case ast.BoolOp(op=sign, values=values):
            result = (all if isinstance(sign, ast.And) else any)(_value(one, sizes) for one in values)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            result = _FUNCTIONS[name](*(_value(one, sizes) for one in arguments))
        case _:
            raise NotInGrammar("unknown node")
    if not -_LARGEST <= result < _LARGEST:
        raise OverflowError("a size is larger than 64 bits")
    return result
