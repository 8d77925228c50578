"""Users' code is blamed by a line of its own, whatever it is and however it fails."""

import functools
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from loading.dotted_path import load_dotted
from loading.users_code import UsersCodeError, call, users_place
from tasks.config import TaskSettings
from tasks.users_scorer import users_reward, users_scorer
from tasks.verifier_process import VerifierProcess

CODE = """
import numpy

WEIGHTS = {"brief": 1.0}
brief_text = "not a function"

def one(answer): return True

class Scores:
    def __init__(self, answer): pass

class Plain: pass

class Called:
    def __call__(self): return True

called = Called()

def raises_what_has_no_words(inputs):
    class Mute(Exception):
        def __str__(self): raise RuntimeError("mute")
    raise Mute

def in_a_library(inputs): return numpy.zeros(-1)

exec(compile("def named_oddly(inputs): raise KeyError(inputs)", "a\\\\0b", "exec"))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    return file


@pytest.mark.parametrize("name", ["WEIGHTS", "brief_text", "numpy"])
@pytest.mark.parametrize("setting", ["task.scorer", "task.rewards", "task.kind"])
def test_what_is_no_function_is_refused_where_it_is_loaded(path: Path, name: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting} = .*'{name}' in .*mine.py is .*; name a (function|class)"):
        load_dotted(f"{path}:{name}", setting)


@pytest.mark.parametrize(
    ("name", "place"), [("one", ":7"), ("Scores", ":10"), ("Plain", ""), ("called", ":15"), ("in_a_library", ":24")]
)
def test_a_wrong_signature_is_the_users_line_and_never_memrs_own(path: Path, name: str, place: str) -> None:
    with pytest.raises(UsersCodeError) as caught:
        users_scorer(f"{path}:{name}")("answer", "final")  # type: ignore[arg-type]
    assert f"failed at {path}{place} (TypeError)" in str(caught.value)


def test_a_partial_and_a_builtin_have_a_place_too(path: Path) -> None:
    part = functools.partial(load_dotted(f"{path}:one", "task.scorer"))
    with pytest.raises(UsersCodeError, match=rf"failed at {path}:7 \(TypeError\)"):
        call("it", part, 1, 2)
    with pytest.raises(UsersCodeError, match="failed at an unknown place"):
        call("it", len, 1)


@pytest.mark.parametrize("name", ["raises_what_has_no_words", "in_a_library", "named_oddly"])
def test_errors_without_words_and_code_without_a_file_are_data(path: Path, name: str) -> None:
    inputs: Any = None
    with pytest.raises(UsersCodeError, match=rf"reward part 'mine.py:{name}' failed at "):
        users_reward(f"{path}:{name}")(inputs)


def test_a_stack_of_code_without_a_file_has_no_users_place(path: Path) -> None:
    stack = f'  File "a\0b", line 1 in f\n  File "{path}", line 7 in one\n'
    assert users_place(stack) == f"{path}:7"


def test_where_a_process_was_is_nowhere_once_it_was_ended() -> None:
    """The thread that hears it may have ended it while another asks."""
    process = VerifierProcess(TaskSettings())
    process.kill()
    assert process.where_it_was() == ""


ODD = """
import asyncio, decimal, fractions
import numpy as np

class Strange:
    def __getattr__(self, name): raise RuntimeError(name)

class Worse:
    @property
    def item(self): raise RuntimeError

def half(_): return decimal.Decimal("0.5")
def third(_): return fractions.Fraction(1, 4)
def long(_): return np.longdouble(2)
def strange(_): return Strange()
def worse(_): return Worse()
def huge(_): return 1e308
def larger(_): return 10**400
def signalling(_): return decimal.Decimal("sNaN")
def date(_): return np.datetime64("2020")
def cancels(_): raise asyncio.CancelledError
def leaves(_): raise GeneratorExit
def bare(_): raise BaseException("bare")
"""


@pytest.mark.parametrize(("name", "value"), [("half", 0.5), ("third", 0.25), ("long", 2.0)])
def test_a_number_of_any_library_is_one(tmp_path: Path, name: str, value: float) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    inputs: Any = None
    assert users_reward(f"{tmp_path}/odd.py:{name}")(inputs) == value


@pytest.mark.parametrize(
    "name", ["strange", "worse", "huge", "larger", "signalling", "date", "cancels", "leaves", "bare"]
)
def test_whatever_comes_back_or_is_raised_is_told_as_the_parts_own(tmp_path: Path, name: str) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    inputs: Any = None
    with pytest.raises(UsersCodeError, match=rf"reward part 'odd.py:{name}' failed at {tmp_path}/odd.py:\d+ \("):
        users_reward(f"{tmp_path}/odd.py:{name}")(inputs)
