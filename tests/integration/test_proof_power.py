"""SmolLM2-135M, real updates, both data types, both LoRA paths: honest versions are served, every fault is refused at once.

`benchmarks/proof_power.py` in small; the faults are its.
"""

import asyncio
import itertools
from functools import partial
from pathlib import Path

import pytest
import torch

from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from actors.load import load_engine
from benchmarks.adapter_faults import FAULTS
from benchmarks.proof_power import Candidate, Trainee, applied, candidate, run_config
from contracts.adapter import Adapter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HONEST_VERSIONS = 3
LEARNING_RATE = 5e-4  # the quickstart's


@pytest.fixture(scope="module", params=["bfloat16", pytest.param("float32", marks=pytest.mark.long)])
def made(request: pytest.FixtureRequest, smollm2_dir: Path) -> tuple[Trainee, list[Adapter]]:
    """A learner and its first versions, 0 to 3."""
    trainee = Trainee(run_config(LEARNING_RATE, request.param, max_operand=99), str(smollm2_dir))
    return trainee, list(itertools.islice(trainee.versions(), HONEST_VERSIONS + 1))


@pytest.mark.parametrize("path", ["unmerged", pytest.param("merged", marks=pytest.mark.long)])
def test_every_honest_version_is_served_and_every_fault_refused(made: tuple[Trainee, list[Adapter]], path: str) -> None:
    trainee, versions = made

    async def prove_all() -> tuple[list[str | None], dict[str, list[int]]]:
        engine = await candidate(f"{path} {trainee.config.learner.dtype}", trainee)
        honest, served = [await engine.refusal(versions[0])], dict[str, list[int]]()
        for before, adapter in itertools.pairwise(versions):
            for name, fault in FAULTS.items() if adapter in (versions[1], versions[-1]) else ():
                refusal = await engine.refusal(adapter, partial(applied, fault, before))
                if refusal is None:
                    served.setdefault(name, []).append(adapter.manifest.policy_version)
            honest.append(await engine.refusal(adapter))
        engine.engine.close()
        return honest, served

    honest, served = asyncio.run(prove_all())
    assert honest == [None] * (HONEST_VERSIONS + 1)
    assert served == {}, "each fault at version 1, whose effect is below rounding, and at the last"


def test_another_base_model_is_refused(made: tuple[Trainee, list[Adapter]]) -> None:
    """Weights that differ by 2 %: another checkpoint of the same training would differ by more."""
    trainee, versions = made
    settings = trainee.config.actors.model_copy(update={"lora_path": "unmerged", "dtype": trainee.config.learner.dtype})
    engine = load_engine(settings, trainee.model_path, trainee.tokenizer)
    assert isinstance(engine, TransformersEngine)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in engine._layers.values():
            layer.weight.add_(0.02 * layer.weight.float().std() * torch.randn(layer.weight.shape, generator=generator))
    found = asyncio.run(Candidate("w0", OneThreadEngine(engine), settings).refusal(versions[0]))
    assert found is not None
    assert "without any adapter" in found
