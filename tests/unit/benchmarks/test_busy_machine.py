"""What a step beside a busy process is compared with, and that the busy process is of the priority that it says."""

import os

import pytest

from benchmarks.busy_machine import CUT_OFF, FOR_INFORMATION, LOWER, Busy, Seconds, environment


def test_the_ratio_is_of_the_medians_and_a_step_that_was_cut_off_gives_its_lower_bound() -> None:
    found = Seconds([2.0, 4.0, 3.0], {"low": [4.5, 9.0, 4.0], "equal": [CUT_OFF]})
    assert found.times("low", 60.0) == (4.5, 1.5)
    assert found.times("equal", 60.0) == ("> 60", "> 20.0")
    assert found.times("other session", 60.0) == ("not measured", "not measured")
    assert Seconds(beside={"low": [1.0]}).times("low", 60.0) == ("not measured", "not measured")


def test_both_sides_have_the_same_threads_and_one_has_what_memr_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, "of the shell")
    ours, theirs = environment("memr", 2), environment("libraries", 2)
    assert (ours["GOMP_SPINCOUNT"], ours["VLLM_CPU_OMP_THREADS_BIND"]) == ("1000", "nobind")
    assert not {"GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "VLLM_CPU_OMP_THREADS_BIND"} & theirs.keys()
    assert ours["OMP_NUM_THREADS"] == theirs["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("busy", [LOWER, *FOR_INFORMATION], ids=lambda busy: busy.name)
def test_the_busy_process_has_the_niceness_and_the_session_that_it_says(busy: Busy) -> None:
    with busy.running() as process:
        assert process.nice() == min(19, os.nice(0) + busy.niceness)
        assert (os.getsid(process.pid) != os.getsid(0)) == busy.own_session
    assert not process.is_running()
