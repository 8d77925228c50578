"""Claim: beside one busy process of lower priority a step takes at most 1.5 times as long as alone.

A step: an update of the learner, or a batch of either engine; SmolLM2-135M and the quickstart's shapes (fewer rows
for vLLM, which is slow on a CPU). Every part runs in a process of its own on two sides: with the environment that memr
gives it, and with the libraries' own defaults at niceness 15, as Ray starts its workers unless told otherwise. Steps
alone and beside the busy process (a loop of Python on one core) are taken in turns; the ratio is of their medians.

The busy process shares the session of what is measured: under autogroup scheduling niceness counts within a session
only. For information: the same at equal niceness, and at niceness 19 in a session of its own. Its share of a core is
the witness that it ran.

    python -m benchmarks.busy_machine [--small] [--threads 2]    at most 8 minutes, on a machine that is else idle
"""

import argparse
import asyncio
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.results_table import RESULTS, show
from cluster.launch.environment import DEFAULTS, OMP_WAIT_POLICY, waiting
from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from cluster.launch.process_env import actor_environment, thread_environment
from cluster.recovery.process_tree import ProcessTree

PARTS = ("learner", "transformers", "vllm")
SIDES = ("memr", "libraries")
RAYS_NICENESS = 15
CUT_OFF = float("inf")
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@dataclass(frozen=True, slots=True)
class Busy:
    """A process that computes without end. niceness: added to ours. own_session: where autogroup makes it an equal."""

    name: str
    niceness: int
    own_session: bool = False

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        code = f"import os\nos.nice({self.niceness})\nprint(flush=True)\nwhile True: pass"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=self.own_session
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield psutil.Process(process.pid)
            finally:
                process.kill()


LOWER = Busy("lower priority", 19)
FOR_INFORMATION = (Busy("equal priority", 0), Busy("19 in its own session", 19, own_session=True))


class Measured:
    """A part in a process of its own, which makes a step when it is asked to."""

    def __init__(self, part: str, side: str, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.busy_machine", *sys.argv[1:], "--part", part, "--side", side]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(side, threads_of(part, args))
        )
        self._answer(args.start_s)
        self._limit_s = args.step_s

    def step(self) -> float:
        """CUT_OFF for one that took too long, and for every one after it or where the part did not load in time."""
        if self._process.poll() is not None:
            return CUT_OFF
        assert self._process.stdin is not None
        self._process.stdin.write(b"step\n")
        self._process.stdin.flush()
        return self._answer(self._limit_s)

    def end(self) -> None:
        ProcessTree(self._process.pid).end()
        self._process.wait()

    def _answer(self, limit_s: float) -> float:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        if not ready:
            self.end()
            return CUT_OFF
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the measured process died: its own words are above")
        return float(line)


@dataclass(slots=True)
class Seconds:
    """Of steps alone and beside each busy process; shares: of a core, what the one of lower priority got."""

    alone: list[float] = field(default_factory=list)
    beside: dict[str, list[float]] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)

    def times(self, name: str, limit_s: float) -> tuple[float | str, float | str]:
        """Median seconds beside the busy process of that name, and how many times as long as alone; what both are above
        where a step was cut off."""
        alone, beside = (
            statistics.median(self.alone or [CUT_OFF]),
            statistics.median(self.beside.get(name) or [CUT_OFF]),
        )
        if alone == CUT_OFF or name not in self.beside:
            return "not measured", "not measured"
        if beside == CUT_OFF:
            return f"> {limit_s:.0f}", f"> {limit_s / alone:.1f}"
        return beside, beside / alone


def environment(side: str, threads: int) -> dict[str, str]:
    """memr's own, or without all that memr sets but the number of threads, which both sides have alike."""
    ours = actor_environment(DEFAULTS | waiting({}), {}, "warning")
    plain = {name: value for name, value in os.environ.items() if name not in {*ours, OMP_WAIT_POLICY}}
    return plain | (ours if side == "memr" else {"VLLM_LOGGING_LEVEL": "WARNING"}) | thread_environment(threads)


def threads_of(part: str, args: argparse.Namespace) -> int:
    """vLLM has one less: its scheduler, in a process of its own, does not sleep while a batch is computed."""
    return max(1, args.threads - 1) if part == "vllm" else int(args.threads)


def measure(part: str, side: str, args: argparse.Namespace) -> Seconds:
    """In turns, so that whatever else the machine does meets both alike. Ends with a step that is cut off."""
    found, process = Seconds(), Measured(part, side, args)
    turns = [LOWER, *FOR_INFORMATION, *[LOWER] * (args.repeats - 1)]
    try:
        for busy in turns:
            alone = process.step()
            if alone == CUT_OFF:
                break
            found.alone.append(alone)
            with busy.running() as other:
                before, started = sum(other.cpu_times()[:2]), time.perf_counter()
                found.beside.setdefault(busy.name, []).append(process.step())
                share = (sum(other.cpu_times()[:2]) - before) / (time.perf_counter() - started)
            if busy is LOWER:
                found.shares.append(share)
    finally:
        process.end()
    return found


def row(part: str, side: str, args: argparse.Namespace, found: Seconds) -> dict[str, Any]:
    seconds, ratio = found.times(LOWER.name, args.step_s)
    return {
        "step": part,
        "environment": side,
        "threads": threads_of(part, args),
        "alone s": statistics.median(found.alone) if found.alone else "not measured",
        "beside lower priority s": seconds,
        "ratio": ratio,
        "its share of a core": statistics.median(found.shares) if found.shares else "not measured",
        **{f"ratio, {busy.name}": found.times(busy.name, args.step_s)[1] for busy in FOR_INFORMATION},
    }


def serve(args: argparse.Namespace) -> None:
    """The measured process: a step to warm up, then one for each line on standard input; the answer is its seconds."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM tells standard output
    if args.side == "libraries":
        os.nice(RAYS_NICENESS)
    step = learner_step(args) if args.part == "learner" else engine_step(args)
    step()
    print("0", file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, file=answers, flush=True)


def learner_step(args: argparse.Namespace) -> Callable[[], object]:
    from benchmarks.learner_update import make_groups
    from learner.config import LearnerSettings
    from learner.learner import Learner
    from learner.policy import LoraPolicy

    settings = LearnerSettings(
        device="cpu", torch_threads=threads_of("learner", args), max_policy_lag=1000, mismatch_stop=1e9
    )
    policy = LoraPolicy.load(resolve_model(PACKAGED_MODEL), settings, seed=0)
    learner = Learner(policy, settings, "benchmark", (), args.new_tokens)
    groups = make_groups(args)
    return lambda: learner.step(groups)


def engine_step(args: argparse.Namespace) -> Callable[[], object]:
    import torch
    from transformers import AutoModelForCausalLM

    from actors.config import ActorSettings
    from actors.load import EngineNeeds, start_engine
    from benchmarks.rollout_engine import EndlessTokenizer, random_adapter
    from contracts.ports import GenerationRequest
    from contracts.problem import Sampling

    model = resolve_model(PACKAGED_MODEL)
    adapter = random_adapter(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
    threads = threads_of(args.part, args)
    settings = ActorSettings.model_validate({"engine": args.part, "device": "cpu", "torch_threads": threads})
    groups, tokens = (args.vllm_groups, args.vllm_new_tokens) if args.part == "vllm" else (args.groups, args.new_tokens)
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 1000, args.max_prompt_tokens).astype(np.int32) for _ in range(groups)]
    seeds = tuple(range(args.rollouts))
    requests = [GenerationRequest(prompt, seeds, Sampling(1.0, tokens)) for prompt in prompts]
    needs = EngineNeeds(adapter.manifest.lora.r, args.max_prompt_tokens + tokens + 8)
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(start_engine(settings, model, EndlessTokenizer(), needs))  # type: ignore[arg-type]
    loop.run_until_complete(engine.load_adapter(adapter))
    return lambda: loop.run_until_complete(engine.generate(requests, adapter.manifest.policy_version, 3600.0))


def main() -> None:
    args = _arguments()
    if args.part:
        serve(args)
        return
    others = os.getloadavg()[0]
    rows = [row(part, side, args, measure(part, side, args)) for part in args.parts for side in SIDES]
    autogroup = AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else "absent"
    show(
        "busy_machine",
        f"One step beside a busy process, SmolLM2-135M: {args.groups} x {args.rollouts} rollouts of {args.new_tokens} "
        f"tokens (vLLM: {args.vllm_groups} x {args.rollouts} of {args.vllm_new_tokens})",
        rows,
        f"goal: ratio at most 1.5 with memr's environment; steps are cut off after {args.step_s:.0f} s; load before it "
        f"began {others:.1f}; autogroup {autogroup}",
        Path(tempfile.mkdtemp()) if args.small else RESULTS,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="a try of the script itself: two rollouts of two tokens, once"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step-s", type=float, default=45.0, help="after which a step is cut off")
    parser.add_argument("--start-s", type=float, default=300.0, help="in which a part loads and warms up")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = {"groups": 8, "rollouts": 8, "new_tokens": 16, "vllm_groups": 2, "vllm_new_tokens": 8}
    prompts = {"min_prompt_tokens": 28, "max_prompt_tokens": 30}
    if args.small:
        sizes, args.repeats = dict.fromkeys(sizes, 2), 1
    for name, size in (sizes | prompts).items():
        setattr(args, name, size)
    return args


if __name__ == "__main__":
    main()
