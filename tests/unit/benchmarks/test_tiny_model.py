"""The tiny model's folder is a transformers model like any other, for tokenizer, engine, learner and memory; runs without
Ray on it do what runs do."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.load import EngineNeeds
from benchmarks.in_process_run import run_in_process, train_in_process
from benchmarks.memory_arms import newest_adapter_hash
from benchmarks.tiny_cell import TinyRun, evaluate, evaluated_versions, measures, tiny_config
from benchmarks.tiny_model import ALPHABET, WORLDS, build_competent, char_tokenizer
from cluster.config.run_config import RunConfig
from contracts.errors import ConfigError, EngineError
from contracts.ports import AsyncEngine
from learner.load import load_learner
from tasks.load import load_task
from tasks.prompts import load_tokenizer, template_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained: built in a second."""
    target = tmp_path_factory.mktemp("tiny")
    build_competent(WORLDS["sums"], target, accuracy=0.0, max_steps=1)
    return target


def small_config(folder: Path, directory: Path, memory: dict[str, object], seed: int = 0) -> RunConfig:
    config = tiny_config(TinyRun("scratchpad", seed, 2, 8, {"encoder": "hash:16"} | memory), folder, directory)
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"groups_per_batch": 4})})


def test_folder_loads_through_auto_classes_and_is_of_the_size_it_says(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(0.34e6, rel=0.02)
    assert len(tokenizer) == model.config.vocab_size
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (model.config.eos_token_id, model.config.pad_token_id)


def test_every_character_is_a_token_and_comes_back(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    text = f"{ALPHABET}<think>\n7+8=15\n</think>\n15"
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(np.array(ids, np.int32)) == text
    assert len(ids) == len(text) - len("<think>") - len("</think>") + 2, "a tag is one token"


def test_prompt_is_the_sum_alone(folder: Path) -> None:
    tokenizer, task = load_tokenizer(str(folder)), load_task(WORLDS["sums"].settings)
    problem = task.train_problem(0)
    text = tokenizer.decode(tokenizer.encode_chat(problem.messages))
    assert f"What is {text}".replace("+", " + ").replace("-", " - ") == f"{problem.question}\n"


def test_learner_and_worker_agree_on_tokenizer_and_template(folder: Path) -> None:
    fingerprint = load_tokenizer(str(folder)).fingerprint
    assert fingerprint == template_hash(char_tokenizer()), "the folder's tokenizer is the one that trained the model"
    config = tiny_config(TinyRun("sums", 0, 2, 8, {"profile": "off"}), folder, folder)
    learner = load_learner(config.learner, str(folder), 0, fingerprint, (), 5)
    assert learner.publish().manifest.template_hash == fingerprint


def test_a_run_without_ray_trains_with_memory_and_repeats_itself(folder: Path, tmp_path: Path) -> None:
    hashes = set()
    for name in ("first", "second"):
        config = small_config(folder, tmp_path / name, {"profile": "memr"})
        record = train_in_process(config)
        assert [line["step"] for line in record.metrics] == [1, 2]
        assert record.metrics[-1]["ledger"]["trained"] == 8
        assert sum(line["bonus_groups"] for line in record.metrics) > 0
        hashes.add(newest_adapter_hash(config.run_path / "adapters"))
    assert len(hashes) == 1
    off = small_config(folder, tmp_path / "off", {"profile": "off"})
    train_in_process(off)
    assert newest_adapter_hash(off.run_path / "adapters") not in hashes, "memory changed what was learned"


@pytest.mark.parametrize(("generous", "room"), [(80, 64 + 80 + 80), (4000, None)])
def test_an_engine_has_room_for_the_longest_answer_that_an_evaluation_asks_for(
    generous: int, room: int | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker of `memr train`: prompt, answer and, in a task of the user's own, as much again; or no run is begun."""
    asked: list[int] = []

    async def no_engine(_settings: object, _path: object, _tokenizer: object, needs: EngineNeeds) -> AsyncEngine:
        asked.append(needs.max_model_len)
        raise EngineError("seen enough")

    monkeypatch.setattr("benchmarks.in_process_run.start_engine", no_engine)
    config = small_config(folder, tmp_path, {"profile": "off"})
    evaluations = config.eval.model_copy(update={"problems": 4, "generous_max_new_tokens": generous})
    config = config.model_copy(update={"eval": evaluations})
    with pytest.raises(EngineError if room else ConfigError, match="seen enough" if room else "context has 256"):
        train_in_process(config)
    assert asked == ([room] if room else [])
    assert config.run_path.exists() == bool(room)


async def test_evaluation_asks_the_same_problems_with_the_same_seeds_whatever_the_arm(
    folder: Path, tmp_path: Path
) -> None:
    """Version 0 is the same policy in both arms: so are its answers."""
    reports = []
    for profile in ("off", "memr"):
        config = small_config(folder, tmp_path / profile, {"profile": profile})
        trained = await run_in_process(config, {0, 2})
        reports.append(await evaluate(trained, 0, config, 8))
        assert sorted(trained.kept) == [0, 2]
    assert [dataclasses.asdict(r) for r in reports[0]] == [dataclasses.asdict(r) for r in reports[1]]
    assert (reports[0][0].n, reports[0][1].k) == (8, 8)
    assert set(measures(reports)) == {"greedy", "sampled", "pass@8"}


def test_the_last_three_of_ten_steps_are_evaluated() -> None:
    assert evaluated_versions(150) == (120, 135, 150)
    assert evaluated_versions(14) == (12, 13, 14)
    with pytest.raises(ValueError, match="9 updates leave no three versions"):
        evaluated_versions(9)
