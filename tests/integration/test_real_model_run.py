"""The main job in small: SmolLM2-135M, the real encoder, Ray, two updates; then export and evaluation."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_scripted_run import ROOT, lines, memr

QUICKSTART = ROOT / "configs" / "quickstart.toml"
SMALL = [
    "learner.num_updates=2",
    "cluster.groups_per_batch=4",
    "actors.rollouts_per_group=4",
    "eval.problems=8",
    "eval.pass_at_k=0",
    "eval.generous_max_new_tokens=20",
    "cluster.tensorboard=false",
]


def train(directory: Path, name: str, *more: str) -> Path:
    values = [f"run.directory={directory}", f"run.name={name}", *SMALL, *more]
    done = memr("train", str(QUICKSTART), *[a for v in values for a in ("--set", v)], timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    return train(tmp_path_factory.mktemp("real"), "small", "learner.max_policy_lag=0")


@pytest.mark.slow
def test_learner_and_engine_agree_and_the_adapter_moves(run: Path) -> None:
    metrics = lines(run / "metrics.jsonl")
    assert [line["policy_version"] for line in metrics] == [1, 2]
    assert all(line["mismatch_mean"] < 0.05 for line in metrics), "bfloat16, adapter beside the weights"
    assert all(line["adapter_delta_norm"] > 0 for line in metrics)
    assert metrics[-1]["memory_episodes"] == 2 * 4 * 4
    assert {line["max_new_tokens"] for line in lines(run / "eval.jsonl")} == {16, 20}


@pytest.mark.slow
def test_without_lag_the_same_seed_gives_the_same_adapter_bytes_and_memory(run: Path, tmp_path: Path) -> None:
    again = train(tmp_path, "again", "learner.max_policy_lag=0")
    first, second = (_fingerprint(path) for path in (run, again))
    assert first == second


def _fingerprint(run: Path) -> dict[str, str]:
    files = [*run.glob("adapters/v000002-*/adapter_model.safetensors"), *run.glob("checkpoints/step-000002/memory/*/*")]
    assert len(files) == 5
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_export_loads_in_plain_transformers_and_equals_the_adapter(run: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged, adapter = tmp_path / "merged", tmp_path / "adapter"
    assert memr("export", str(run), str(merged), "--merge").returncode == 0
    assert memr("export", str(run), str(adapter)).returncode == 0
    tokens = AutoTokenizer.from_pretrained(merged)("What is 2 + 3?", return_tensors="pt")["input_ids"]
    base = json.loads((run / "manifest.json").read_text())["model_path"]
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(tokens).logits
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        untouched = plain(tokens).logits
        beside = PeftModel.from_pretrained(plain, str(adapter))(tokens).logits
    assert np.abs((whole - beside).numpy()).max() < 1e-3, "merged in float32"
    assert not torch.equal(untouched, beside)


@pytest.mark.slow
def test_offline_evaluation_equals_the_runs_own(run: Path) -> None:
    done = memr("eval", str(run), "--problems", "8", "--policy-version", "2", timeout_s=200)
    assert done.returncode == 0, done.stderr
    own = [line for line in lines(run / "eval.jsonl") if line["step"] == 2 and line["max_new_tokens"] == 16]
    assert f"accuracy {own[0]['accuracy']:.1%} of 8 problems" in done.stdout
