"""The table of mutants fits the code as it is, and the runner tells a mutant that matters from one that does not."""

import ast
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.mutant_table import MUTANTS, Mutant, parse
from benchmarks.mutants import ROOT, Verdict, mutated, verdict


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.before[:40]}")
def test_the_line_is_there_once_and_its_tests_too(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    changed = mutated(source, mutant)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), "it is other code"
    assert mutant.tests
    assert [test for test in mutant.tests if not (ROOT / test).is_file()] == []


def test_no_mutant_is_there_twice() -> None:
    assert max(Counter((mutant.file, mutant.before) for mutant in MUTANTS).values()) == 1
    assert max(Counter(mutant.breaks for mutant in MUTANTS).values()) == 1


def mutant_of(before: str, after: str) -> Mutant:
    return Mutant("shop/total.py", ("tests/test_total.py", "tests/test_more.py"), before, after, "")


def test_a_line_keeps_its_place_and_one_that_is_there_twice_or_not_at_all_is_refused() -> None:
    source = "def f():\n    x = 1\n    y = 1\r\n    x = 2\n    x = 2\n"
    assert mutated(source, mutant_of("y = 1", "y = 3")) == source.replace("y = 1", "y = 3")
    for line, times in (("x = 2", 2), ("= 1", 0)):
        with pytest.raises(ValueError, match=rf"shop/total.py has the line '{line}' {times} times"):
            mutated(source, mutant_of(line, "pass"))


@pytest.mark.parametrize("left", ["- a", "+ b", "  c", "tests"])
def test_a_block_that_is_no_mutant_is_refused(left: str) -> None:
    block = "shop/total.py: test_total.py\n- a\n+ b\n  c"
    one = Mutant("shop/total.py", ("tests/unit/test_total.py",), "a", "b", "c")
    assert parse(f"{block}\n- d\n+ e\n  f\n\n{block}\n") == (one, replace(one, before="d", after="e", breaks="f"), one)
    with pytest.raises(ValueError, match="no mutants, which are FILE"):
        parse("\n".join(line for line in block.replace(": test_total.py", ": tests").splitlines() if left not in line))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "shop" / "total.py").write_text("def total(prices):\n    # of all of them\n    return sum(prices)\n")
    for name in ("total", "more"):
        test = f"from shop.total import total\n\ndef test_{name}():\n    assert total([2, 3]) == 5\n"
        (tmp_path / "tests" / f"test_{name}.py").write_text(test)
    return tmp_path


@pytest.mark.parametrize(
    ("mutant", "said"),
    [
        (mutant_of("# of all of them", "# of some of them"), Verdict.SURVIVED),
        (mutant_of("return sum(prices)", "return max(prices)"), Verdict.KILLED),
        (mutant_of("def total(prices):", "def tally(prices):"), Verdict.BROKEN),
    ],
    ids=lambda value: value if isinstance(value, Verdict) else "",
)
def test_the_runner_tells_what_the_tests_say(package: Path, mutant: Mutant, said: Verdict) -> None:
    before = (package / mutant.file).read_text()
    assert verdict(package, mutant) is said
    assert (package / mutant.file).read_text() == before


def test_what_a_test_leaves_running_is_ended(package: Path) -> None:
    leaves = """
import subprocess, sys
def test_total():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open("child", "w").write(str(child.pid))
    assert False
"""
    (package / "tests" / "test_total.py").write_text(leaves)
    assert verdict(package, mutant_of("return sum(prices)", "return 0")) is Verdict.KILLED
    child, until = int((package / "child").read_text()), time.monotonic() + 30
    while lives(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not lives(child)


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
