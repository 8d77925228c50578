"""The exact value of plain arithmetic over a few numbers, with bounded effort: is "(7 + 12) * 2" really 38?"""

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

MAX_CHARS = 300
MAX_POWER = 64
MAX_SIZE = 10**30

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def arithmetic_value(expression: str) -> Fraction | None:
    """expression: whole numbers, + - * / **, parentheses. None where it is anything else, or large."""
    if len(expression) > MAX_CHARS:
        return None
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError, ZeroDivisionError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)) if abs(number) < MAX_SIZE:
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, power = _value(left), _value(right)
            if power.denominator != 1 or abs(power) > MAX_POWER:
                raise ValueError("too large a power")
            return _bounded(base**power.numerator)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left), _value(right)))
    raise ValueError("not plain arithmetic")


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > MAX_SIZE:
        raise ValueError("too large")
    return value
