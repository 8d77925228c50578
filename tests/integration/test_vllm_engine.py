"""The real vLLM on this machine's CPU, SmolLM2-135M in float32: parity with the learner, versions side by side, and the
probes that catch what would otherwise train on the wrong numbers."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from actors.config import ActorSettings, VllmSettings
from actors.load import EngineNeeds, load_engine, load_worker_tokenizer, start_engine
from actors.rollout_worker import RolloutWorker
from contracts.adapter import Adapter, AdapterManifest
from contracts.errors import AdapterMissingError, ProofError
from contracts.ports import AsyncEngine, GenerationRequest, Tokenizer
from contracts.problem import Sampling
from contracts.rollout import FinishReason
from learner.config import LearnerSettings
from learner.policy import LoraPolicy
from learner.probe_reader import ProbeReader
from tasks.config import TaskSettings
from tasks.load import load_task, make_verifier

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
T = TypeVar("T")
QUESTIONS = ("What is 7 + 12?", "What is 20 - 3?", "Name a colour.")


class Loop:
    """An event loop on a thread of its own, so that one engine serves many tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)


class Teacher:
    """The learner's policy under a few fixed adapters, and what it makes of the probe sequences."""

    def __init__(self, model: Path, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.policy = LoraPolicy.load(str(model), LearnerSettings(dtype="float32", device="cpu"), seed=0)
        self._untrained = self.policy.adapter_bytes()
        self.sequences = [tokenizer.encode_chat([{"role": "user", "content": q}]) for q in QUESTIONS]
        self.reader = ProbeReader(self.policy, self.sequences)

    def weights(self, version: int) -> bytes:
        """Version 0 has B = 0; the others move it, each in its own direction, about as far as a short training."""
        tensors = safetensors.torch.load(self._untrained)
        generator = torch.Generator().manual_seed(version)
        for name, tensor in sorted(tensors.items()):
            if "lora_B" in name and version:
                tensors[name] = torch.randn(tensor.shape, generator=generator) * 0.01
        return safetensors.torch.save(tensors)

    def logprobs(self, weights: bytes, sequences: Sequence[NDArray[np.int32]]) -> list[NDArray[np.float32]]:
        self.policy.load_adapter_bytes(weights)
        return [self.policy.sequence_logprobs(tokens_P) for tokens_P in sequences]

    def adapter(self, version: int, weights: bytes | None = None, template_hash: str | None = None) -> Adapter:
        """The manifest is honest about `version`; `weights` are what is shipped in its place."""
        honest = self.weights(version)
        self.policy.load_adapter_bytes(honest)
        shipped = weights if weights is not None else honest
        probes, amplified = self.reader.read()
        manifest = AdapterManifest(
            policy_version=version,
            weights_hash=hashlib.sha256(shipped).hexdigest(),
            num_bytes=len(shipped),
            base_model="smollm2",
            lora=self.policy.lora,
            dtype="float32",
            template_hash=template_hash if template_hash is not None else self.tokenizer.fingerprint,
            probes=probes,
            amplified=amplified,
        )
        return Adapter(manifest, shipped)


@pytest.fixture(scope="module")
def loop() -> Loop:
    return Loop()


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Tokenizer:
    return load_worker_tokenizer(SETTINGS, str(smollm2_dir))


@pytest.fixture(scope="module")
def teacher(smollm2_dir: Path, tokenizer: Tokenizer) -> Teacher:
    return Teacher(smollm2_dir, tokenizer)


SETTINGS = ActorSettings.model_validate(
    {"engine": "vllm", "dtype": "float32", "device": "cpu", "vllm": {"max_num_seqs": 16, "kv_cache_bytes": 2**28}}
)
NEEDS = EngineNeeds(max_lora_rank=16, max_model_len=256)


@pytest.mark.parametrize(
    ("given", "on_cpu", "expected"),
    [
        ({}, False, {"gpu_memory_utilization": 0.85}),
        ({"kv_cache_bytes": 2**30}, False, {"gpu_memory_utilization": 0.85, "kv_cache_memory_bytes": 2**30}),
        (
            {"kv_cache_bytes": 2**30, "gpu_memory_utilization": 0.4},
            False,
            {"gpu_memory_utilization": 0.4, "kv_cache_memory_bytes": 2**30},
        ),
        ({}, True, {"kv_cache_memory_bytes": 2**30}),
        ({"kv_cache_bytes": 2**28, "gpu_memory_utilization": 0.4}, True, {"kv_cache_memory_bytes": 2**28}),
    ],
)
def test_vllm_is_told_how_much_of_a_card_it_may_take_whatever_its_cache(
    given: dict[str, Any], on_cpu: bool, expected: dict[str, Any]
) -> None:
    """Untold it wants 0.92 of the card to be free, and never starts beside a learner."""
    from actors.engines.vllm_engine import VllmLimits, engine_arguments  # here, as the import of vLLM warns

    found = engine_arguments(
        "m", VllmSettings.model_validate(given), VllmLimits("bfloat16", on_cpu, 4, 16, 456, 0, 600.0)
    )
    keys = ("gpu_memory_utilization", "kv_cache_memory_bytes")
    assert {key: found[key] for key in keys if key in found} == expected


def start(loop: Loop, settings: ActorSettings, model: Path, tokenizer: Tokenizer) -> AsyncEngine:
    return loop.run(start_engine(settings, model, tokenizer, NEEDS))


@pytest.fixture(scope="module")
def engine(loop: Loop, smollm2_dir: Path, tokenizer: Tokenizer, teacher: Teacher) -> Iterator[AsyncEngine]:
    started = start(loop, SETTINGS, smollm2_dir, tokenizer)
    for version in (0, 1, 2):
        loop.run(started.load_adapter(teacher.adapter(version)))
    yield started
    started.close()


def worker_on(engine: AsyncEngine, tokenizer: Tokenizer, settings: ActorSettings = SETTINGS) -> RolloutWorker:
    task = TaskSettings(kind="arithmetic")
    return RolloutWorker("w0", engine, tokenizer, load_task(task), make_verifier(task), settings)


def ask(
    teacher: Teacher, which: int = 0, samples: int = 4, tokens: int = 12, temperature: float = 1.0
) -> GenerationRequest:
    return GenerationRequest(teacher.sequences[which], tuple(range(samples)), Sampling(temperature, tokens))


def test_vllm_transformers_engine_and_learner_agree_on_the_same_sequences(
    loop: Loop, engine: AsyncEngine, teacher: Teacher, smollm2_dir: Path, tokenizer: Tokenizer
) -> None:
    other = load_engine(ActorSettings(dtype="float32", device="cpu"), smollm2_dir, tokenizer)
    for version in (0, 1, 2):
        other.load_adapter(teacher.adapter(version))
        wanted = teacher.logprobs(teacher.weights(version), teacher.sequences)
        for tokens_P, learner_P in zip(teacher.sequences, wanted, strict=True):
            np.testing.assert_allclose(loop.run(engine.score(tokens_P, version)), learner_P, atol=1e-3)
            np.testing.assert_allclose(other.score(tokens_P, version), learner_P, atol=1e-3)


def test_versions_in_one_batch_each_sample_from_their_own_distribution(
    loop: Loop, engine: AsyncEngine, teacher: Teacher
) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(engine.generate([ask(teacher, temperature=0.7)], v, 120.0) for v in (0, 1, 2)))

    for version, [generations] in enumerate(loop.run(together())):
        for generation in generations:
            whole = np.concatenate([teacher.sequences[0], generation.tokens_T])
            teacher.policy.load_adapter_bytes(teacher.weights(version))
            learner_T = _tempered(teacher.policy, whole, 0.7)[len(teacher.sequences[0]) :]
            np.testing.assert_allclose(generation.logprobs_T, learner_T, atol=2e-3)
            assert generation.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


@torch.no_grad()
def _tempered(policy: LoraPolicy, tokens_P: NDArray[np.int32], temperature: float) -> NDArray[np.float32]:
    """Log-probs at a temperature, from the whole matrix of logits."""
    ids_1P = torch.from_numpy(tokens_P.astype(np.int64))[None]
    logits_PV = policy._causal(input_ids=ids_1P, use_cache=False).logits[0, :-1] / temperature
    picked = torch.log_softmax(logits_PV, -1).gather(1, ids_1P[0, 1:, None])[:, 0]
    return np.concatenate([np.zeros(1, np.float32), picked.numpy()])


def test_an_end_token_stops_and_is_part_of_the_record(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    short = GenerationRequest(_question(teacher, "Say yes."), (0,), Sampling(0.0, 100))
    [[generation]] = loop.run(engine.generate([short], 0, 120.0))
    assert generation.finish_reason is FinishReason.STOP
    assert int(generation.tokens_T[-1]) in teacher.tokenizer.eos_token_ids


def _question(teacher: Teacher, text: str) -> NDArray[np.int32]:
    return teacher.tokenizer.encode_chat([{"role": "user", "content": text}])


def test_probes_are_scored_while_other_versions_decode(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    async def together() -> NDArray[np.float32]:
        company = [asyncio.ensure_future(engine.generate([ask(teacher, 1, 4, 30)], v, 120.0)) for v in (0, 2)]
        await asyncio.sleep(0.5)
        scores = await engine.score(teacher.sequences[0], 1)
        assert not any(task.done() for task in company), "the company was still decoding"
        await asyncio.gather(*company)
        return scores

    wanted = teacher.logprobs(teacher.weights(1), teacher.sequences)[0]
    np.testing.assert_allclose(loop.run(together()), wanted, atol=1e-3)


def test_deadline_room_and_missing_versions_are_told_apart(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    [late] = loop.run(engine.generate([ask(teacher, tokens=200)], 0, 0.0))
    assert {generation.finish_reason for generation in late} == {FinishReason.TIMEOUT}
    long = GenerationRequest(np.full(NEEDS.max_model_len, 5, np.int32), (0,), Sampling(1.0, 4))
    [[overlong]] = loop.run(engine.generate([long], 0, 60.0))
    assert overlong.finish_reason is FinishReason.OVERLONG
    nearly = GenerationRequest(long.prompt_P[4:], (0,), Sampling(1.0, 400))
    [[cut]] = loop.run(engine.generate([nearly], 0, 60.0))
    if len(cut.tokens_T) == 4:  # it did not end by itself before
        assert cut.finish_reason is FinishReason.OVERLONG, (
            "cut by the engine's room, not by the limit that was asked for"
        )
    [[whole]] = loop.run(engine.generate([GenerationRequest(nearly.prompt_P, (0,), Sampling(1.0, 2))], 0, 60.0))
    assert whole.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    with pytest.raises(AdapterMissingError, match="not 7"):
        loop.run(engine.generate([ask(teacher)], 7, 60.0))


def test_why_a_request_without_an_adapter_is_never_sent(
    loop: Loop, engine: AsyncEngine, teacher: Teacher, record_property: Any
) -> None:
    """In a batch with adapters, the CPU build 0.32 was seen to answer it with one of them. Whatever the installed
    version does, the record says which it was; version 0 in its place is the base model in any company."""
    from vllm import SamplingParams

    llm = engine._llm  # type: ignore[attr-defined]
    prompt = teacher.sequences[0]

    async def bare() -> NDArray[np.float32]:
        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0)
        async for output in llm.generate({"prompt_token_ids": prompt.tolist()}, parameters, request_id="bare"):
            entries = output.prompt_logprobs[1:]
        return np.array([0.0, *(e[int(t)].logprob for t, e in zip(prompt[1:], entries, strict=True))], np.float32)

    async def mixed() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        company = [asyncio.ensure_future(engine.generate([ask(teacher, 1, 4, 40)], v, 120.0)) for v in (1, 2)]
        await asyncio.sleep(0.3)
        found = await bare(), await engine.score(prompt, 0)
        await asyncio.gather(*company)
        return found

    without, version_0 = loop.run(mixed())
    base = teacher.logprobs(teacher.weights(0), [prompt])[0]
    np.testing.assert_allclose(version_0, base, atol=1e-3)
    wrong = [v for v in (1, 2) if np.abs(without - teacher.logprobs(teacher.weights(v), [prompt])[0]).max() < 1e-3]
    right = bool(np.abs(without - base).max() < 1e-3)
    answer = "the base model answered" if right else f"answered by {wrong or 'a mixture'}"
    record_property("request without an adapter", answer)


def renamed(weights: bytes) -> bytes:
    """Every tensor under a name that no module has."""
    tensors = safetensors.torch.load(weights)
    return safetensors.torch.save({name.replace("layers.", "blocks."): t for name, t in tensors.items()})


def test_the_probe_lets_an_honest_adapter_pass(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    worker = worker_on(engine, teacher.tokenizer)
    loop.run(worker.adopt(teacher.adapter(3)))
    assert worker.report().policy_version == 3


def test_the_probe_catches_renamed_tensors(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    """Some versions of vLLM refuse such an adapter, some load it without effect: it must not be served either way."""
    with pytest.raises((ProofError, ValueError), match="no effect|refuses"):
        loop.run(worker_on(engine, teacher.tokenizer).adopt(teacher.adapter(4, renamed(teacher.weights(4)))))


def test_the_probe_catches_another_versions_weights(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    worker = worker_on(engine, teacher.tokenizer)
    loop.run(worker.adopt(teacher.adapter(1)))
    with pytest.raises(ProofError, match="log-probs of version 1: another version's weights"):
        loop.run(worker.adopt(teacher.adapter(5, teacher.weights(1))))


def test_the_probe_catches_a_changed_chat_template(loop: Loop, engine: AsyncEngine, teacher: Teacher) -> None:
    with pytest.raises(ProofError, match="tokenizer or chat template is"):
        loop.run(worker_on(engine, teacher.tokenizer).adopt(teacher.adapter(6, template_hash="another")))


@pytest.mark.long
def test_the_probe_catches_an_adapter_that_is_merged_into_the_base_model_too(
    loop: Loop, teacher: Teacher, smollm2_dir: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from storage.peft_folder import write_peft_folder

    base = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    adapter = teacher.adapter(1)
    merged = PeftModel.from_pretrained(base, write_peft_folder(adapter, tmp_path)).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(smollm2_dir).save_pretrained(tmp_path / "merged")
    engine = start(loop, SETTINGS, tmp_path / "merged", teacher.tokenizer)
    try:
        with pytest.raises(ProofError, match="without any adapter .* base model"):
            loop.run(worker_on(engine, teacher.tokenizer).adopt(adapter))
    finally:
        engine.close()


@pytest.mark.long
def test_the_probe_catches_a_base_model_of_another_data_type(loop: Loop, teacher: Teacher, smollm2_dir: Path) -> None:
    rounded = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    engine = start(loop, rounded, smollm2_dir, teacher.tokenizer)
    try:
        with pytest.raises(ProofError, match="weights or data type differ"):
            loop.run(worker_on(engine, teacher.tokenizer, SETTINGS).adopt(teacher.adapter(1)))
        honest = worker_on(engine, teacher.tokenizer, rounded)
        loop.run(honest.adopt(teacher.adapter(1)))
        assert honest.report().policy_version == 1, "said to be bfloat16, the same engine is within its tolerance"
    finally:
        engine.close()


ENGINE_ALONE = """
import asyncio, os, sys, time
import psutil
from actors.child_guard import guard_children
from actors.load import load_worker_tokenizer, start_engine
from tests.integration.test_vllm_engine import NEEDS, SETTINGS

async def main():
    scratch = guard_children()
    tokenizer = load_worker_tokenizer(SETTINGS, sys.argv[1])
    engine = await start_engine(SETTINGS, sys.argv[1], tokenizer, NEEDS, scratch)
    print("pids", *(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.long
def test_kill_9_of_the_worker_leaves_no_engine_process_behind(smollm2_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "engine_alone.py"
    script.write_text(ENGINE_ALONE)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(script), str(smollm2_dir)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as alone:
        assert alone.stdout is not None
        words = next((line.split() for line in alone.stdout if line.startswith("pids")), [])
        alone.send_signal(signal.SIGKILL)
    pids = [int(word) for word in words[1:]]
    names = {psutil.Process(pid).name() for pid in pids if psutil.pid_exists(pid)}
    assert len(pids) >= 3, f"engine core, its worker and a tracker were seen: {names}"
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
