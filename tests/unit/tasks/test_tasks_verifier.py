"""Whatever one answer does to its judge, that answer alone is invalid and the next is judged."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Invalid, Scored, Verdict
from tasks.config import TaskSettings
from tasks.verifier import ProcessVerifier

HOSTILE = r"""
import ctypes, os, re, signal, subprocess, sys, time; import numpy as np

def scorer(answer, final):
    what = answer.text
    if what == "raise": raise RuntimeError("no idea")
    if what == "sleep":
        while True: time.sleep(0.1)
    if what == "regex": re.match(r"(a+)+$", "a" * 60 + "b")
    if what == "tower": 7 ** 7 ** 9
    if what == "exit": os._exit(3)
    if what == "system exit": sys.exit(0)
    if what == "segfault": ctypes.string_at(0)
    if what == "print": print("x" * 100_000); sys.stdout.flush(); sys.stderr.write("noise")
    if what == "read": input()
    if what == "ignore": signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)
    if what == "child": subprocess.Popen(["sleep", "3600"]).wait()
    if what == "memory": bytearray(2 ** 34)
    if what == "fork": os.fork()
    if what == "fork and stay" and os.fork() == 0: time.sleep(3600)
    if what == "fork and exit":
        if os.fork() == 0: time.sleep(3600)
        os._exit(3)
    if what == "not bool": return 1
    if what == "none": return None
    if what == "array": return np.array([True, True])
    if what == "numpy true": return np.isclose(1.0, 1.0)
    if what == "numpy false": return np.bool_(False)
    if what == "tensor-like true": return np.array(True)
    if what == "long": return len(answer.problem.question) == 3_000_000
    return what == "right"

def not_a_number(inputs):
    return float("nan")

class Unprintable:
    def __repr__(self): raise RuntimeError

def nothing(inputs): pass
def text(inputs): return "1"
def vector(inputs): return np.array([1.0, 2.0])
def endless(inputs): return np.float64("inf")
def huge(inputs): return 10 ** 400
def unprintable(inputs): return Unprintable()
def numpy_half(inputs): return np.float32(0.5)
def a_bool(inputs): return np.bool_(True)
def on_some(inputs): return len(inputs.final) / 2
def zero_dimensional(inputs): return np.array(0.25)
def whole(inputs): return 2
"""
PROBLEM = Problem("p", "What is 7 + 12?", "19", ())
NO_REFERENCE = Problem("p", "Write a poem.", "", ())
"""Nothing is known to be right, so nobody can tell whether an answer or the scorer is to blame."""


def answer(text: str, problem: Problem = PROBLEM) -> Answer:
    return Answer(problem, text, 4, 16, False)


@pytest.fixture(scope="module")
def hostile() -> Iterator[ProcessVerifier]:
    """A verifier whose scorer does what the answer tells it to."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        import tempfile

        folder = stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder, "hostile_scorer.py").write_text(HOSTILE)
        patch.syspath_prepend(folder)
        verifier = ProcessVerifier(TaskSettings(scorer="hostile_scorer:scorer", verifier_timeout_s=1.0))
        stack.callback(verifier.close)
        yield verifier


def outcome(verdict: Verdict) -> str:
    return verdict.reason if isinstance(verdict, Invalid) else str(verdict.correct)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", "hostile_scorer.py:6 (RuntimeError): no idea"),
        ("sleep", "not judged within task.verifier_timeout_s = 1, it was at {folder}/hostile_scorer.py:8"),
        ("regex", "it was at {folder}/hostile_scorer.py:9"),
        ("tower", "it was at {folder}/hostile_scorer.py:10"),
        ("ignore", "it was at {folder}/hostile_scorer.py:16"),
        ("child", "it was at {folder}/hostile_scorer.py:17"),
        ("exit", "ended with exit code 3"),
        ("fork and exit", "ended with exit code 3"),
        ("system exit", "hostile_scorer.py:12 (SystemExit): 0"),
        ("segfault", "SIGSEGV"),
        ("memory", "hostile_scorer.py:18 (MemoryError)"),
        ("read", "hostile_scorer.py:15 (EOFError)"),
        ("not bool", "hostile_scorer.py:4 (int): it returned 1; it must return True or False"),
        ("none", "(NoneType): it returned None; it must return True or False"),
        ("array", "(ndarray): it returned array([ True,  True]); it must return True or False"),
    ],
)
def test_a_hostile_answer_is_invalid_and_its_neighbours_are_judged(
    hostile: ProcessVerifier, what: str, reason: str
) -> None:
    texts = ("right", what, "right", "wrong")
    before, bad, after, last = hostile.verify([answer(text, NO_REFERENCE) for text in texts])
    assert isinstance(bad, Invalid)
    assert reason.format(folder=sys.path[0]) in bad.reason
    assert [outcome(verdict) for verdict in (before, after, last)] == ["True", "True", "False"]
    assert outcome(hostile.verify([answer("right")])[0]) == "True"


@pytest.mark.parametrize(
    ("what", "note"),
    [
        ("raise", "task.scorer 'hostile_scorer:scorer' failed at {folder}/hostile_scorer.py:6 (RuntimeError): no idea"),
        ("none", "it returned None"),
    ],
)
def test_an_answer_that_a_sound_scorer_cannot_read_is_wrong_and_the_note_says_where(
    hostile: ProcessVerifier, what: str, note: str
) -> None:
    """It judges the reference, so the answer is to blame: if that made the answer invalid, garbage would leave its group."""
    [verdict] = hostile.verify([answer(what)])
    assert verdict == Scored(0.0, False, {"correctness": 0.0})
    assert isinstance(verdict, Scored)
    assert note.format(folder=sys.path[0]) in verdict.note


def test_a_part_that_cannot_read_an_answer_is_0_for_it_and_the_note_says_where(hostile: ProcessVerifier) -> None:
    verifier = ProcessVerifier(TaskSettings.model_validate({"rewards": [{"name": "hostile_scorer:on_some"}]}))
    good, bad = verifier.verify([answer("19"), answer("no number")])
    [unknown] = verifier.verify([answer("no number", NO_REFERENCE)])
    verifier.close()
    assert good == Scored(1.0, True, {"hostile_scorer:on_some": 1.0})
    assert bad == Scored(0.0, False, {"hostile_scorer:on_some": 0.0})
    assert isinstance(bad, Scored)
    assert "(TypeError): object of type 'NoneType' has no len()" in bad.note
    assert isinstance(unknown, Invalid)


@pytest.mark.parametrize("what", ["numpy true", "tensor-like true"])
def test_scalars_of_array_libraries_are_verdicts(hostile: ProcessVerifier, what: str) -> None:
    assert [outcome(v) for v in hostile.verify([answer(what), answer("numpy false")])] == ["True", "False"]


@pytest.mark.parametrize(
    ("part", "value"), [("numpy_half", 0.5), ("a_bool", 1.0), ("zero_dimensional", 0.25), ("whole", 2.0)]
)
def test_a_users_reward_may_be_any_finite_scalar(hostile: ProcessVerifier, part: str, value: float) -> None:
    verifier = ProcessVerifier(TaskSettings.model_validate({"rewards": [{"name": f"hostile_scorer:{part}"}]}))
    [verdict] = verifier.verify([answer("19")])
    verifier.close()
    assert verdict == Scored(value, True, {f"hostile_scorer:{part}": value})


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("not_a_number", "returned nan"),
        ("nothing", "returned None"),
        ("text", "returned '1'"),
        ("vector", "returned array([1., 2.])"),
        ("endless", "returned np.float64(inf)"),
        ("huge", "returned 1000"),
        ("unprintable", "returned a Unprintable that cannot be shown"),
    ],
)
def test_a_users_reward_that_is_no_finite_number_is_told_with_its_place(
    hostile: ProcessVerifier, part: str, told: str
) -> None:
    verifier = ProcessVerifier(TaskSettings.model_validate({"rewards": [{"name": f"hostile_scorer:{part}"}]}))
    [verdict] = verifier.verify([answer("19")])
    verifier.close()
    assert isinstance(verdict, Invalid)
    assert verdict.reason.startswith(f"reward part 'hostile_scorer:{part}' failed at {sys.path[0]}/hostile_scorer.py:")
    assert told in verdict.reason
    assert verdict.reason.endswith("it must return a finite number")


def test_what_a_scorer_prints_does_not_disturb_the_protocol(hostile: ProcessVerifier) -> None:
    assert [outcome(v) for v in hostile.verify([answer("print"), answer("right")])] == ["False", "True"]


@pytest.mark.parametrize("what", ["fork", "fork and stay"])
def test_one_answer_has_one_reply_although_its_judge_forked(hostile: ProcessVerifier, what: str) -> None:
    texts = ("right", what, "right", "wrong", what, "wrong", "right")
    assert [outcome(verdict) for verdict in hostile.verify([answer(text) for text in texts])] == [
        str(text == "right") for text in texts
    ]


def test_what_a_dead_judge_forked_is_ended_with_it(hostile: ProcessVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TaskSettings(scorer="hostile_scorer:scorer", verifier_processes=1, verifier_timeout_s=30.0)
    monkeypatch.setenv("MEMR_JUDGE_OF", str(os.getpid()))
    verifier = ProcessVerifier(settings)
    assert _children_marked(), "the mark is inherited"
    verifier.verify([answer("fork and exit")])
    verifier.close()
    wait_until(lambda: not _children_marked(), "its fork")


def _children_marked() -> list[int]:
    """Of every living process that was started with the mark, whoever owns it now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("MEMR_JUDGE_OF") == str(os.getpid()):
                found.append(process.pid)
    return found


def test_an_answer_larger_than_any_pipe_arrives_whole(hostile: ProcessVerifier) -> None:
    problem = Problem("p", "x" * 3_000_000, "19", ())
    assert outcome(hostile.verify([answer("long", problem)])[0]) == "True"


def test_an_idle_child_killed_from_outside_costs_no_answer(hostile: ProcessVerifier) -> None:
    hostile.verify([answer("right")] * 4)
    for pid in children_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not alive(pid), "the kill")  # type: ignore[misc]
    assert [outcome(v) for v in hostile.verify([answer("right")] * 4)] == ["True"] * 4


def test_a_stopped_child_is_replaced(hostile: ProcessVerifier) -> None:
    known = set(children_of(os.getpid()))
    settings = TaskSettings(scorer="hostile_scorer:scorer", verifier_processes=1, verifier_timeout_s=1.0)
    verifier = ProcessVerifier(settings)
    (child,) = set(children_of(os.getpid())) - known
    os.kill(child, signal.SIGSTOP)
    big = answer("right", Problem("p", "x" * 3_000_000, "19", ()))
    verdicts = [outcome(verdict) for verdict in verifier.verify([big, answer("right")])]
    verifier.close()
    assert verdicts == ["True", "True"]  # it was not the answer's fault, so it was judged again


def test_verdicts_come_in_the_order_of_the_answers_with_many_threads_at_once(hostile: ProcessVerifier) -> None:
    texts = ["right", "wrong", "raise", "right"] * 5
    expected = ["True", "False", "False", "True"] * 5
    got: dict[int, list[str]] = {}

    def work(i: int) -> None:
        got[i] = [outcome(verdict) for verdict in hostile.verify([answer(text) for text in texts])]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert got == dict.fromkeys(range(4), expected)


def test_simple_answers_start_no_process() -> None:
    verifier = ProcessVerifier(TaskSettings())
    known = set(children_of(os.getpid()))
    verdicts = verifier.verify([answer("It is 19."), answer("18"), answer("no number")] * 20)
    assert set(children_of(os.getpid())) == known
    assert [outcome(v) for v in verdicts] == ["True", "False", "False"] * 20
    assert verdicts[0] == Scored(1.0, True, {"correctness": 1.0})
    verifier.close()


def test_a_power_tower_is_wrong_at_once_and_plain_algebra_beside_it_is_judged() -> None:
    verifier = ProcessVerifier(TaskSettings(answer_form="boxed", verifier_timeout_s=3.0))
    problem = Problem("p", "q", r"\frac{\pi}{2}", ())
    texts = [r"\boxed{\pi/2}", r"\boxed{9^{9^{9^9}}}", r"\boxed{\pi}", r"\boxed{\frac{2\pi}{4}}", "none"]
    verdicts = verifier.verify([answer(text, problem) for text in texts])
    verifier.close()
    assert [outcome(verdict) for verdict in verdicts] == ["True", "False", "False", "True", "False"]
    assert not any(verdict.note for verdict in verdicts if isinstance(verdict, Scored))


def test_closing_kills_the_children_and_ends_a_verify_under_way(hostile: ProcessVerifier) -> None:
    verifier = ProcessVerifier(TaskSettings(scorer="hostile_scorer:scorer", verifier_timeout_s=500.0))
    got: list[Verdict] = []
    thread = threading.Thread(target=lambda: got.extend(verifier.verify([answer("sleep"), answer("right")])))
    known = set(children_of(os.getpid()))
    thread.start()
    time.sleep(0.3)
    verifier.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert got[0] == Invalid("the verifier was closed")
    assert verifier.verify([answer("right")]) == [Invalid("the verifier was closed")]
    assert set(children_of(os.getpid())) <= known


@pytest.mark.parametrize("busy", [False, True])
def test_children_end_when_the_parent_is_killed(hostile: ProcessVerifier, busy: bool) -> None:
    then = "v.verify([Answer(Problem('p', '', '', ()), 'tower', 1, 2, False)])" if busy else "time.sleep(3600)"
    code = (
        "from tasks.config import TaskSettings; from tasks.verifier import ProcessVerifier; import time\n"
        "from contracts.ports import Answer; from contracts.problem import Problem\n"
        "v = ProcessVerifier(TaskSettings(scorer='hostile_scorer:scorer', verifier_timeout_s=1.0))\n"
        "print('ready', flush=True)\n"
        f"{then}"
    )
    env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    orphans = children_of(parent.pid)
    assert orphans
    if busy:
        time.sleep(0.3)
    parent.kill()
    parent.wait(timeout=10)
    parent.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in orphans), "the end of the orphans")


def children_of(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.02)
