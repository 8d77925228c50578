"""Users' code at the moment it fails: where in whose file, in words that name it once and for all.

    task.scorer 'my_reward.py:close' failed at /home/me/my_reward.py:14 (ValueError): could not convert 'x' to float

Everything up to the closing bracket is the same for the same fault: that is how a fault is told once.
"""

import math
import os
import re
import sysconfig
import traceback
from collections.abc import Callable
from typing import Any

from contracts.own_packages import PACKAGES, ROOT

END_OF_KIND = "): "
MAX_SHOWN = 300
_LIBRARIES = tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
_OWN = tuple(os.path.join(ROOT, package) + os.sep for package in PACKAGES)


class UsersCodeError(Exception):
    """What users' code did instead of its work; the message says which code, where, what."""


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Raises UsersCodeError for whatever it raises, an attempt to exit included. what: for example `task.scorer 'a:b'`."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise UsersCodeError(told(what, error)) from error


def told(what: str, error: BaseException) -> str:
    return f"{what} failed at {place_of(error)} ({type(error).__name__}{END_OF_KIND}{str(error)[:MAX_SHOWN]}"


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


def place_of(error: BaseException) -> str:
    """File and line: of the innermost frame that is neither a library's nor ours, else of the innermost."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return place_in(frames)


def place_in(frames: list[tuple[str, int | None]]) -> str:
    """frames: file and line, outermost first."""
    theirs = [frame for frame in frames if _is_users(frame[0])]
    file, line = (theirs or frames or [("an unknown place", None)])[-1]
    return file if line is None else f"{file}:{line}"


def users_place(stack: str) -> str:
    """file:line of the innermost frame of a user's in faulthandler's account (innermost first); "" where there is none."""
    frames = re.findall(r'^  File "(.*)", line (\d+) in ', stack, re.MULTILINE)
    return next((f"{file}:{line}" for file, line in frames if _is_users(file)), "")


def defined_at(function: Any) -> str:
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return "an unknown place" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def plain(value: Any) -> Any:
    """Scalars of numpy, torch and their kin as Python's own; everything else as it is."""
    if type(value).__module__ == "builtins" or not callable(getattr(value, "item", None)):
        return value
    try:
        return value.item()
    except Exception:  # noqa: BLE001  several elements, or an `item` of another meaning: not a scalar
        return value


def finite_number(value: Any) -> float | None:
    """None for what is no finite number; True and False are 1 and 0."""
    number = plain(value)
    if not isinstance(number, int | float):
        return None
    try:
        return float(number) if math.isfinite(number) else None
    except OverflowError:
        return None


def shown(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001  users' own __repr__
        return f"a {type(value).__name__} that cannot be shown"


def _is_users(file: str) -> bool:
    real = os.path.realpath(file)
    return not file.startswith("<") and not real.startswith((*_LIBRARIES, *_OWN))
