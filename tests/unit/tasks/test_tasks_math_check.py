"""math-verify behind the exact fast path."""

import pytest

from tasks.math_check import is_equal


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("18", "18.00"),
        (r"\pi/2", r"\frac{\pi}{2}"),
        ("pi/2", r"\frac{\pi}{2}"),
        ("1 + x^2", "x^2 + 1"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("(1, 2)", "(1,2)"),
        (r"\boxed{5\pi}", r"5\pi"),
    ],
)
def test_equal_in_value_is_equal(answer: str, reference: str) -> None:
    assert is_equal(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("19", "18"),
        (r"\pi", r"2\pi"),
        ("(2,1)", "(1,2)"),
        ("%$ {", r"\pi"),
        (r"\frac{", "x+1"),
        ("blue", r"\pi"),
        ("2^{10}", "1024"),
    ],
)
def test_different_or_unreadable_answers_are_wrong(answer: str, reference: str) -> None:
    assert not is_equal(answer, reference)


def test_a_reference_that_is_empty_is_an_error_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match=r"reference answer .* task\.scorer"):
        is_equal("x + 1", " ")
