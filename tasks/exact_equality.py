"""Equality of numbers for math-verify without its tolerances: exact, or the rounding rule of `tasks.numerals`.

math-verify rounds floats to six decimals and drops what is below 1e-15, both absolutely, so that all small numbers
are equal (its issue 14). Here floats become the decimals that were written, values are compared to 50 digits
relatively, and what agrees is checked again exactly.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from tasks.numerals import MIN_ROUNDED_DIGITS, Number, is_finite_decimal, is_nearest, is_rounding

DIGITS = 50
LARGEST_DENOMINATOR = 10**60
MAX_UNKNOWNS = 3
MAX_DEGREE = 4


def use_exact_equality() -> None:
    """Replaces math-verify's comparisons of values in this process. Safe to call again."""
    from math_verify import grader

    if grader.sympy_numeric_eq is not _numeric_eq:
        grader.sympy_symbolic_eq = partial(_symbolic_eq, grader.sympy_symbolic_eq)
        grader.sympy_solve_and_compare = partial(_solve_and_compare, grader.sympy_solve_and_compare)
        grader.sympy_numeric_eq = _numeric_eq


def exact(expression: Any) -> Any:
    """The parsed expression with every float replaced by the decimal that was written."""
    from sympy import Basic, Float, MatrixBase, Rational

    if not isinstance(expression, Basic | MatrixBase):
        return expression
    floats = expression.atoms(Float)
    return expression.xreplace({number: Rational(str(number)) for number in floats}) if floats else expression


def as_rational(value: Fraction) -> Any:
    """As sympy's number."""
    from sympy import Rational

    return Rational(value.numerator, value.denominator)


def equal_values(a: Any, b: Any) -> bool:
    """a, b: sympy expressions without unknowns. The same value, or one a decimal that rounds the other."""
    from sympy import Rational

    a, b = a.doit(), b.doit()
    if a == b:
        return True
    if _symbols(a) or _symbols(b):
        return False
    if isinstance(a, Rational) and isinstance(b, Rational):
        return is_rounding(_as_number(a), _fraction(b)) or is_rounding(_as_number(b), _fraction(a))
    near, far = a.evalf(DIGITS, maxn=4 * DIGITS), b.evalf(DIGITS, maxn=4 * DIGITS)
    if not (near.is_number and far.is_number and near.is_finite and far.is_finite):
        return False
    for decimal, value, irrational in ((a, far, b), (b, near, a)):
        if isinstance(decimal, Rational) and irrational.is_rational is not True and _rounds(decimal, value):
            return True
    if abs(near - far) > max(abs(near), abs(far)) * Rational(10) ** (10 - DIGITS):
        return False
    return bool((a - b).is_zero is not False and (a - b).equals(0) is not False)


def _rounds(decimal: Any, value: Any) -> bool:
    number = _as_number(decimal)
    return (
        number.digits >= MIN_ROUNDED_DIGITS
        and bool(value.is_real)
        and is_nearest(decimal, as_rational(number.unit), value)
    )


def _as_number(value: Any) -> Number:
    """A rational as the shortest decimal that writes it, without digits where there is none."""
    fraction = _fraction(value)
    if fraction.denominator == 1 or fraction.denominator > LARGEST_DENOMINATOR or not is_finite_decimal(fraction):
        return Number(fraction)
    places = 0
    while (fraction * 10**places).denominator > 1:
        places += 1
    digits = len(str(abs(fraction.numerator * 10**places // fraction.denominator)))
    return Number(fraction, digits=digits, unit=Fraction(1, 10**places))


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def _symbols(expression: Any) -> frozenset[Any]:
    return frozenset(getattr(expression, "free_symbols", ()))


def _symbolic_eq(simplifies_to_zero: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    """Of expressions with unknowns; those that differ at one point are not simplified, which may take minutes."""
    return bool(_symbols(a) | _symbols(b)) and not _differ_somewhere(a, b) and simplifies_to_zero(a, b)


def _differ_somewhere(a: Any, b: Any) -> bool:
    """Whether a and b have different values where their unknowns are certain positive numbers."""
    from sympy import Rational

    unknowns = sorted(_symbols(a) | _symbols(b), key=str)
    point = {symbol: Rational(1_009 + 31 * i, 997) for i, symbol in enumerate(unknowns)}
    try:
        left, right = (side.xreplace(point).evalf(20, maxn=DIGITS) for side in (a, b))
        gap, size = abs(left - right), max(abs(left), abs(right))
        return bool(gap.is_finite and size.is_finite and gap > size * Rational(1, 10**9))
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        return False  # no numbers: matrices, sets, functions that are only names


def _solve_and_compare(solves: Callable[..., bool], gold: Any, pred: Any, *tolerances: int) -> bool:
    """Equations in the same unknowns, the answer's of no higher degree than the reference's or four."""
    from sympy import Poly, PolynomialError

    if gold.free_symbols != pred.free_symbols or len(gold.free_symbols) > MAX_UNKNOWNS:
        return False
    try:
        degrees = [
            Poly(side.lhs - side.rhs, *sorted(gold.free_symbols, key=str)).total_degree() for side in (gold, pred)
        ]
    except PolynomialError:
        return False
    return max(degrees) <= MAX_DEGREE and solves(gold, pred, *tolerances)


def _numeric_eq(a: Any, b: Any, float_rounding: int = 0, numeric_precision: int = 0) -> bool:  # noqa: ARG001
    from sympy import MatrixBase, MatrixExpr

    if isinstance(a, MatrixBase | MatrixExpr) or isinstance(b, MatrixBase | MatrixExpr):
        a, b = a.doit(), b.doit()
        matrices = isinstance(a, MatrixBase) and isinstance(b, MatrixBase) and a.shape == b.shape
        return matrices and all(_cell_eq(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    return equal_values(exact(a), exact(b))


def _cell_eq(a: Any, b: Any) -> bool:
    from math_verify import grader

    return bool(_numeric_eq(a, b) or grader.sympy_symbolic_eq(a, b))
