"""Users' code at the moment it fails: where in whose file, in words that name it once and for all.

    task.scorer 'my_reward.py:close' failed at /home/me/my_reward.py:14 (ValueError): could not convert 'x' to float

Everything up to the closing bracket is the same for the same fault: that is how a fault is told once.
"""

import math
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any

from contracts.errors import ConfigError
from loading.own_packages import PACKAGES, ROOT

END_OF_KIND = "): "
MAX_SHOWN = 300
MAX_NUMBER = 1e9
"""Of a reward: far beyond any that means something, and far from where float32 ends."""
_LIBRARIES = tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
_OWN = tuple(os.path.join(ROOT, package) + os.sep for package in PACKAGES)


class UsersCodeError(Exception):
    """What users' code did instead of its work; the message says which code, where, what."""


def call(what: str, function: Callable[..., Any], *arguments: Any, blame: Any = None) -> Any:
    """Raises UsersCodeError for whatever it raises, an attempt to exit included. what: for example `task.scorer 'a:b'`.
    blame: the user's own function, where another one calls it."""
    try:
        return function(*arguments)
    except KeyboardInterrupt:  # Ctrl-C of the user
        raise
    except BaseException as error:  # SystemExit, GeneratorExit and asyncio's CancelledError are no Exceptions
        raise UsersCodeError(failure_text(what, error, blame or function)) from error


def call_or_stop(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """For code that the run cannot do without: raises ConfigError, which ends the run, where `call` raises UsersCodeError."""
    try:
        return call(what, function, *arguments)
    except UsersCodeError as error:
        raise ConfigError(str(error)) from error


def failure_text(what: str, error: BaseException, function: Any = None) -> str:
    """function: of the user's, which was called; blamed where no line of its own was reached, as for a wrong signature."""
    place = place_of(error, defined_at(function)) if function is not None else place_of(error)
    return f"{what} failed at {place} ({type(error).__name__}{END_OF_KIND}{_said(error)[:MAX_SHOWN]}"


def refused(what: str, function: Any, value: Any, expected: str) -> UsersCodeError:
    """For a value of another type than was asked for."""
    return UsersCodeError(
        f"{what} failed at {defined_at(function)} ({type(value).__name__}{END_OF_KIND}it returned {shown(value)}; "
        f"it must return {expected}"
    )


def kind_of(reason: str) -> str:
    """What two tellings of the same fault have in common."""
    return reason.partition(END_OF_KIND)[0]


def fault_in(text: str) -> str:
    """The part of a text that tells a fault of users' code, from the file on; the whole text where it tells none."""
    _, mark, fault = text.partition(" failed at ")
    return fault if mark else text


def place_of(error: BaseException, otherwise: str = "") -> str:
    """File and line: of the innermost frame that is neither a library's nor ours, else `otherwise`, else of the innermost."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return place_in(frames, otherwise)


def place_in(frames: list[tuple[str, int | None]], otherwise: str = "") -> str:
    """frames: file and line, outermost first."""
    theirs = [frame for frame in frames if _is_users(frame[0])]
    if not theirs and otherwise:
        return otherwise
    file, line = (theirs or frames or [("an unknown place", None)])[-1]
    return file if line is None else f"{file}:{line}"


def users_place(stack: str) -> str:
    """file:line of the innermost frame of a user's in faulthandler's account (innermost first); "" where there is none."""
    frames = re.findall(r'^  File "(.*)", line (\d+) in ', stack, re.MULTILINE)
    return next((f"{file}:{line}" for file, line in frames if _is_users(file)), "")


def defined_at(function: Any) -> str:
    """File and line of a function, a method, a partial of one, or a class."""
    function = getattr(function, "func", function)  # functools.partial
    methods = (function, getattr(function, "__init__", None), type(function).__call__)
    code = next((code for method in methods if (code := getattr(method, "__code__", None)) is not None), None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return getattr(module, "__file__", None) or "an unknown place"


def plain(value: Any) -> Any:
    """Scalars of numpy, torch and their kin as Python's own; everything else as it is."""
    try:
        if type(value).__module__ == "builtins" or not callable(getattr(value, "item", None)):
            return value
        return value.item()
    except Exception:  # noqa: BLE001  several elements, or an `item` of another meaning: not a scalar
        return value


def finite_number(value: Any) -> float | None:
    """None for what is no number of at most MAX_NUMBER in size; True and False are 1 and 0."""
    number = plain(value)
    if not isinstance(number, Real | Decimal):
        return None
    try:
        found = float(number)
    except (OverflowError, ValueError):  # ValueError: Decimal's signalling NaN
        return None
    return found if abs(found) <= MAX_NUMBER else None


def expected_number(value: Any) -> str:
    """What a value that `finite_number` refuses should have been."""
    too_large = isinstance(value, float) and math.isfinite(value)
    return f"a finite number, at most {MAX_NUMBER:g} in size" if too_large else "a finite number"


def _said(error: BaseException) -> str:
    """The error's words; users may raise what cannot say them."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  users' own __str__
        return "an error that cannot be shown"


def shown(value: Any) -> str:
    """Returns at most 80 characters of a value's repr, whatever its repr does."""
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001  users' own __repr__
        return f"a {type(value).__name__} that cannot be shown"


def _is_users(file: str) -> bool:
    if file.startswith("<") or "\0" in file:  # compiled from a text, under a name that is no file's
        return False
    return not os.path.realpath(file).startswith((*_LIBRARIES, *_OWN))
