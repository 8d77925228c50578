"""The main job in small: SmolLM2-135M, the real encoder, Ray, four updates; the same killed and resumed; then export and evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.record.events.resuming import Resumed
from cluster.record.run_view import read_run
from tests.integration.test_resume_run import fingerprint, finish, kill_at_step, resume, start
from tests.integration.test_scripted_run import lines, memr

UPDATES = 4
SMALL = {
    "learner.num_updates": UPDATES,
    "learner.max_policy_lag": 0,
    "cluster.groups_per_batch": 3,
    "cluster.checkpoint_every_updates": 2,
    "actors.rollouts_per_group": 4,
    "eval.problems": 8,
    "eval.pass_at_k": 0,
    "eval.generous_max_new_tokens": 20,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    directory = tmp_path_factory.mktemp("real")
    finish(start("quickstart", directory, "small", SMALL))
    return directory / "small"


@pytest.mark.slow
def test_learner_and_engine_agree_and_the_adapter_moves(run: Path) -> None:
    metrics = lines(run / "metrics.jsonl")
    assert [line["policy_version"] for line in metrics] == [1, 2, 3, 4]
    assert all(line["mismatch_mean"] < 0.05 for line in metrics), "bfloat16, adapter beside the weights"
    assert all(line["adapter_delta_norm"] > 0 for line in metrics)
    assert metrics[-1]["memory_episodes"] == UPDATES * 3 * 4
    assert {line["max_new_tokens"] for line in lines(run / "eval.jsonl")} == {16, 20}


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_killed_and_resumed_the_same_seed_gives_the_same_adapter_bytes_and_memory(run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    kill_at_step(start("quickstart", tmp_path, "killed", SMALL), killed, UPDATES - 1, 0.5)
    resume(killed)
    assert fingerprint(killed, UPDATES) == fingerprint(run, UPDATES)
    [resumed] = [event for event in read_run(killed).events if isinstance(event, Resumed)]
    assert resumed.updates_replayed >= 1
    assert resumed.memory_difference == 0.0


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
    done = memr("eval", str(run), "--problems", "8", "--policy-version", str(UPDATES), timeout_s=200)
    assert done.returncode == 0, done.stderr
    own = [line for line in lines(run / "eval.jsonl") if line["step"] == UPDATES and line["max_new_tokens"] == 16]
    assert f"accuracy {own[0]['accuracy']:.1%} of 8 held-out problems" in done.stdout
