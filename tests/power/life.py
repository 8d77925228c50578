"""One life of a run in one process, without Ray: everything that writes is the real thing (controller, log, checkpoints, memory
with its snapshots, adapters, recorder, run directory), the policy is a hash.

    python -m tests.power.life ROOT --nonce N [--updates U] [--stop-at SITE:COUNT]

Rollouts are different in every life (the nonce is in their text), and an adapter's bytes are a hash of every rollout that
it was trained on, in order: a version that is made a second time of other rollouts, or of the same ones in another order,
has other bytes. What a life tells the world goes to ROOT/marks while it is recorded (tests/power/disk.py).
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from actors.load import load_worker_tokenizer
from cluster.config.run_config import RunConfig, load_config
from cluster.flow.controller import Controller
from cluster.flow.stages import RunInputs
from cluster.handles import Services
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.checkpoint import log_floor
from cluster.record.data_identity import task_hash
from cluster.record.events.event import Event
from cluster.record.events.training import CheckpointWritten
from cluster.record.history import History, RecoveredState
from cluster.record.recorder import Recorder
from cluster.record.resume import read_recovered_run
from cluster.record.run_dir import claim_run, create_run, forget_summary, refuse_live_run, write_summary
from cluster.record.run_log import RunLog
from cluster.record.run_view import read_run
from contracts.adapter import Adapter
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import RolloutGroup, ScoredGroup
from learner.config import LearnerSettings
from learner.scripted_learner import ScriptedLearner
from memory_service import snapshot
from memory_service.encoder import load_encoder
from memory_service.service import EpisodicMemory
from storage.bounded_json import Stored, read_fields
from storage.durable import write_file
from tasks.answer_rule import ANSWER_RULE
from tasks.load import load_task
from tasks.task_data import look_through
from tests.fakes import FakeWorker, FakeWorkers
from tests.power.disk import MARKS

ROOT = Path(__file__).resolve().parents[2]
SEGMENT_BYTES = 60_000
UPDATES = 8
Say = Callable[[dict[str, Any]], None]


def config_at(directory: Path, updates: int = UPDATES) -> RunConfig:
    overrides = {
        "run.directory": str(directory / "runs"),
        "run.name": "r",
        "actors.rollouts_per_group": 2,
        "actors.max_batch_rows": 4,
        "actors.max_new_tokens": 8,
        "learner.num_updates": updates,
        "cluster.groups_per_batch": 4,
        "cluster.checkpoint_every_updates": 3,
        "cluster.adapters_on_disk": 2,
        "cluster.checkpoints_kept": 2,
        "eval.problems": 2,
        "eval.every_updates": 3,
    }
    return load_config(ROOT / "configs" / "scripted.toml", [f"{k}={json.dumps(v)}" for k, v in overrides.items()])


class _Chain(Stored):
    chain: str


class HashLearner:
    """cluster.handles.LearnerHandle. The scripted learner, with weights that are a hash of what it was trained on."""

    def __init__(self, lag: int, template_hash: str, *, hashed: bool) -> None:
        self._learner = ScriptedLearner(LearnerSettings(max_policy_lag=lag), template_hash)
        self._hashed = hashed
        self._chain = ""
        self.trained: list[tuple[str, ...]] = []

    async def first_adapter(self) -> Adapter:
        adapter = self._learner.publish()
        if not self._hashed:
            return adapter
        weights = save_tensors({"chain": np.frombuffer(self._chain.encode() or b"0", np.uint8)})
        digest = hashlib.sha256(weights).hexdigest()
        return Adapter(replace(adapter.manifest, weights_hash=digest, num_bytes=len(weights)), weights)

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        await asyncio.sleep(0.001)
        report = self._learner.step(groups)
        texts = tuple(rollout.text for scored in groups for rollout in scored.group.rollouts)
        self.trained.append(texts)
        self._chain = hashlib.sha256("\0".join([self._chain, *texts]).encode()).hexdigest()
        return report, await self.first_adapter()

    async def save(self, directory: Path) -> None:
        await asyncio.to_thread(self._save, directory)

    def _save(self, directory: Path) -> None:
        if self._hashed:
            directory.mkdir()
            write_file(directory / "chain", json.dumps({"chain": self._chain}).encode())
        self._learner.save(directory)

    async def restore(self, directory: Path) -> None:
        self._learner.restore(directory)
        if self._hashed:
            self._chain = read_fields(directory / "chain", _Chain).chain

    async def roll_back(self, directory: Path) -> Adapter:
        raise NotImplementedError


class OneAtATime:
    """cluster.handles.MemoryHandle. The real memory in a thread, its calls in the order in which they came, as an actor."""

    def __init__(self, config: RunConfig) -> None:
        self.memory = EpisodicMemory(config.memory, load_encoder(config.memory))
        self._turn = asyncio.Lock()

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        async with self._turn:
            return await asyncio.to_thread(self.memory.score, groups), self.memory.report()

    async def save(self, directory: Path) -> str:
        async with self._turn:
            return await asyncio.to_thread(self.memory.save, directory)

    async def restore(self, snapshot: Path) -> None:
        self.memory.restore(snapshot)


@dataclass
class NonceWorker(FakeWorker):
    """Answers that no other life gives."""

    nonce: str = ""

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        groups = await super().sample(leases)
        return [
            replace(
                group,
                problem_id=lease.problem.problem_id,
                question=lease.problem.question,
                rollouts=tuple(replace(r, text=f"{r.text} {self.nonce}") for r in group.rollouts),
            )
            for group, lease in zip(groups, leases, strict=True)
        ]


@dataclass
class Life:
    """What a life found, and what it told: marks in their order."""

    config: RunConfig
    nonce: str
    hashed: bool = True
    told: list[dict[str, Any]] = field(default_factory=list)
    past: RecoveredState = field(default_factory=RecoveredState)
    log_ended_at: Any = None

    @property
    def path(self) -> Path:
        return self.config.run_path

    @property
    def _template_hash(self) -> str:
        return load_worker_tokenizer(self.config.actors, "scripted").fingerprint

    def say(self, mark: dict[str, Any]) -> None:
        self.told.append(mark)

    async def live(self) -> None:
        """As cluster/launch/train.py does it, to the last update."""
        task = load_task(self.config.task)
        self._begin(task)
        recorder = _Telling(self.path, self.say)
        log = RunLog(self.path / "log", SEGMENT_BYTES, log_floor(self.path))
        self.log_ended_at = log.ended_at
        history = History(log)
        lag = self.config.learner.max_policy_lag
        workers = FakeWorkers([], make=lambda name: NonceWorker(name, delay_s=lambda _: 0.001, nonce=self.nonce))
        memory = OneAtATime(self.config)
        self.learner = HashLearner(lag, self._template_hash, hashed=self.hashed)
        registry = AdapterRegistry(self.path / "adapters", self._share, self.config.cluster.adapters_on_disk)
        services = Services(workers, memory, self.learner)
        self.controller = Controller(RunInputs(self.config, task, services, registry, recorder, history), self.past)
        async with asyncio.timeout(60):
            if await self.controller.restore():
                await self.controller.checkpoint()
            await self.controller.run()
            await self.controller.checkpoint()
        recorder.close()
        history.close()
        self.say({"ended": True, "events": recorder.events})
        write_summary(self.path, {"exit_code": 0, "updates": self.controller.step, "wall_s": 1.0})
        self.say({"finished": self.controller.step})

    def _begin(self, task: Any) -> None:
        if (self.path / "manifest.json").exists():
            refuse_live_run(self.path)
            read_run(self.path)
            self.past = read_recovered_run(self.path, self.config)
        else:
            identity = {"template_hash": self._template_hash, "task_hash": task_hash(task, look_through(task, 1))}
            rest = {"model_path": "scripted", "seed": self.config.run.seed, "answer_rule": ANSWER_RULE}
            create_run(self.config, identity | rest)
            self.say({"created": True})
        claim_run(self.path, None)
        forget_summary(self.path)
        self.say({"begun": True})

    def _share(self, adapter: Adapter) -> Adapter:
        manifest = adapter.manifest
        self.say({"published": manifest.policy_version, "hash": manifest.weights_hash, "folder": manifest.name})
        return adapter


class _Telling(Recorder):
    def __init__(self, path: Path, say: Say) -> None:
        super().__init__(path)
        self._say = say
        self.events = self._safe = len(self.lines.events.look())

    def sync(self) -> None:
        events = self.events  # the loop may tell more while this thread syncs
        super().sync()
        self._safe = max(self._safe, events)

    def event(self, event: Event) -> None:
        super().event(event)
        self.events += 1
        if isinstance(event, CheckpointWritten):
            self._say({"checkpoint": event.step, "events": self._safe})

    def evaluation(self, report: Any) -> None:
        super().evaluation(report)
        self._say({"evaluated": report.step})


class _Recorded(Life):
    """Marks go into the record; every sync says where in the code it stands."""

    def say(self, mark: dict[str, Any]) -> None:
        super().say(mark)
        descriptor = os.open(self.path.parent.parent / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, json.dumps(mark).encode() + b"\n")
        os.close(descriptor)


def _save_file_in_libc(tensors: dict[str, Any], path: Path) -> None:
    """safetensors' own `save_file` asks the kernel past the C library, where the recorder does not hear it. The same bytes
    under the same name; what the test loses is the library's own temporary name inside the folder that nobody sees yet."""
    path.write_bytes(save_tensors(tensors))


def _named_syncs(life: _Recorded, stop_at: str) -> None:
    """stop_at "SITE:COUNT": the process dies before that sync."""
    really, counts = os.fsync, dict.fromkeys([""], 0)

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        site = _site(path)
        counts[site] = counts.get(site, 0) + 1
        if f"{site}:{counts[site]}" == stop_at:
            os._exit(9)
        life.say({"site": site, "path": path})
        really(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


def _site(path: str) -> str:
    """Who asked (three functions outside storage/durable.py, innermost first), and what kind of thing is synced."""
    frames = [
        f for f in reversed(traceback.extract_stack()[:-2]) if str(ROOT) in f.filename and ".venv" not in f.filename
    ]
    durable = [f.name for f in frames if f.filename.endswith("durable.py")]
    others = [f"{Path(f.filename).stem}.{f.name}" for f in frames if "durable.py" not in f.filename][:3]
    if others[0] == "recorder.sync":  # one line of code for several files
        return " < ".join(others)
    if others[0] == "recorder._append_to":  # one for several callers
        others = others[:1]
    return f"{' < '.join(others)}: {durable[-1]} {re.sub('[0-9a-f]{12}|[0-9]+', '#', Path(path).name)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--nonce", default="first")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--stop-at", default="")
    parser.add_argument("--plain", action="store_true", help="the scripted learner's own weights")
    asked = parser.parse_args()
    life = _Recorded(config_at(asked.root, asked.updates), asked.nonce, hashed=not asked.plain)
    _named_syncs(life, asked.stop_at)
    snapshot.save_file = _save_file_in_libc  # type: ignore[attr-defined, assignment]
    asyncio.run(life.live())


if __name__ == "__main__":
    main()
