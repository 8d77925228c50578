"""An engine of the user's own, `actors.engine = "FILE.py:name"`: where it is looked for, what it may answer, how it fails."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.config import ActorSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.load import EngineNeeds, refuse_missing, start_engine
from actors.prover import Prover
from cluster.config.run_config import RunConfig, load_config
from cluster.config.silent_settings import silent_settings
from cluster.launch.placement import Node, place
from cluster.launch.plan import make_plan, plan_rows
from cluster.record.resume import ChangedSetting
from contracts.errors import AdapterMissingError, ConfigError, EngineError, LoadError, ProofError
from contracts.ports import AsyncEngine
from tests.fakes import make_adapter
from tests.tiny_policy import ask, tiny_llama, tiny_tokenizer
from tests.unit.actors.test_prover import published

CODE = """
    import sys
    from contracts.ports import Generation
    from contracts.rollout import FinishReason

    def load(given):
        return Engine()

    async def later(given):
        return Async()

    def broken(given):
        return {}["model"]

    def nothing(given):
        return object()

    class Engine:
        answer = None
        def load_adapter(self, adapter):
            if adapter.manifest.policy_version == 13:
                raise KeyError("thirteen")
        def drop_adapter(self, policy_version):
            pass
        def generate(self, requests, policy_version, deadline_s):
            if self.answer is not None:
                return self.answer(requests)
            one = Generation([7, 1], [-0.5, -0.25], "stop")
            return [[one for _ in request.seeds] for request in requests]
        def score(self, tokens_P, policy_version):
            return [-0.1] * (len(tokens_P) if policy_version != 9 else 1)

    class Async:
        continuous = True
        async def load_adapter(self, adapter): pass
        async def drop_adapter(self, policy_version): pass
        async def generate(self, requests, policy_version, deadline_s): return []
        async def score(self, tokens_P, policy_version): return [0.0] * len(tokens_P)

    answers = {
        "raises": lambda requests: 1 / 0,
        "exits": lambda requests: sys.exit(),
        "is nothing": lambda requests: None,
        "is of too few requests": lambda requests: [],
        "is of too few seeds": lambda requests: [[] for _ in requests],
        "has no log-probs": lambda requests: [[Generation([7], [], "stop")] for _ in requests],
        "has too many tokens": lambda requests: [[Generation([7] * 99, [0.0] * 99, "length")] for _ in requests],
        "has words": lambda requests: [[Generation(["a"], [0.0], "stop")] for _ in requests],
        "ends otherwise": lambda requests: [[Generation([7], [0.0], "done")] for _ in requests],
    }
"""
ANSWERS = [line.split('"')[1] for line in CODE.partition("answers = {")[2].splitlines() if '": lambda' in line]
EXAMPLE = Path(__file__).parents[3] / "examples" / "my_engine.py"
NEEDS = EngineNeeds(max_lora_rank=4, max_model_len=64)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(CODE))
    return str(file)


async def start(name: str) -> AsyncEngine:
    return await start_engine(ActorSettings(engine=name, device="cpu"), "nowhere", CharTokenizer("abc"), NEEDS)


async def test_what_it_answers_is_brought_into_form_and_a_version_is_loaded_once(mine: str) -> None:
    engine: Any = await start(f"{mine}:load")
    await engine.load_adapter(make_adapter(0))
    engine._engine.load_adapter = None
    await engine.load_adapter(make_adapter(0))
    [[first, _]] = await engine.generate([ask("1 + 1", (1, 2))], 0, 60.0)
    assert (first.tokens_T.dtype, first.logprobs_T.dtype, first.tokens_T.tolist()) == (np.int32, np.float32, [7, 1])
    assert (await engine.score(np.arange(3, dtype=np.int32), 0)).dtype == np.float32
    with pytest.raises(AdapterMissingError, match=r"\[0\], not version 4"):
        await engine.generate([], 4, 60.0)
    engine.close()


async def test_an_engine_that_awaits_has_no_thread_and_may_be_continuous(mine: str) -> None:
    engine: Any = await start(f"{mine}:later")
    assert engine.continuous
    assert engine._inner is engine._engine
    engine.close()


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("broken", LoadError, r"actors.engine '.*mine.py:broken' failed at .*mine.py:13 \(KeyError\)"),
        ("nothing", ConfigError, r"mine.py:15 \(object\): .* this has no load_adapter, drop_adapter, generate, score"),
        ("laod", ConfigError, r"has no 'laod'. Did you mean 'load'\?"),
    ],
)
async def test_one_that_cannot_be_made_is_told_with_its_line(
    mine: str, name: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        await start(f"{mine}:{name}")


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_that_is_none_is_an_engine_error_with_its_line_and_a_refusal_before_the_first(
    mine: str, kind: str
) -> None:
    engine: Any = await start(f"{mine}:load")
    await engine.load_adapter(make_adapter(0))
    bad: Callable[..., Any] = engine._engine.load_adapter.__globals__["answers"][kind]
    engine._engine.answer = bad
    with pytest.raises(ValueError, match=r"mine.py:load' failed at .*mine.py:\d+ \("):
        await engine.generate([ask("1", (1,), 4)], 0, 60.0)
    engine._engine.answer = None
    await engine.generate([ask("1", (1,), 4)], 0, 60.0)
    engine._engine.answer = bad
    with pytest.raises(EngineError, match=r"mine.py:load' failed at .*mine.py:\d+ \("):
        await engine.generate([ask("1", (1,), 4)], 0, 60.0)
    engine.close()


async def test_a_version_that_it_cannot_load_or_score_is_refused(mine: str) -> None:
    engine = await start(f"{mine}:load")
    with pytest.raises(ValueError, match=r"mine.py:22 \(KeyError\): 'thirteen'"):
        await engine.load_adapter(make_adapter(13))
    await engine.load_adapter(make_adapter(9))
    with pytest.raises(ValueError, match=r"it must return 3 log-probs, one for each token \(an array of shape \(1,\)"):
        await engine.score(np.arange(3, dtype=np.int32), 9)
    engine.close()


async def test_proof_before_service_is_asked_of_it_too(tmp_path: Path, mine: str) -> None:
    """On the learner's probes the example agrees with the learner; an engine that makes log-probs up does not."""
    tiny_llama().save_pretrained(tmp_path)
    settings = ActorSettings(engine=f"{EXAMPLE}:plain", dtype="float32", device="cpu", torch_threads=1)
    honest = await start_engine(settings, tmp_path, tiny_tokenizer(), NEEDS)
    liar = await start(f"{mine}:load")
    prover = Prover("w0", honest, settings)
    await prover.load_and_prove(published("float32"))
    assert prover.levels["adapted_P"] < 2
    with pytest.raises(ProofError, match="w0 refuses v000001"):
        await Prover("w0", liar, settings).load_and_prove(published("float32"))
    honest.close()
    liar.close()


def test_a_misspelt_engine_is_refused_before_anything_is_loaded(mine: str) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'load'\?"):
        refuse_missing(ActorSettings(engine=f"{mine}:lod"))
    pools = [{"name": "a", "num_workers": 1}, {"name": "b", "num_workers": 1, "engine": f"{mine}:lod"}]
    with pytest.raises(ConfigError, match=r"Did you mean 'load'\?"):
        refuse_missing(ActorSettings.model_validate({"pools": pools}))


def test_a_path_is_relative_to_the_configuration_in_pools_too(mine: str) -> None:
    file = Path(mine).with_name("c.toml")
    file.write_text(
        '[actors]\nengine = "mine.py:load"\n[[actors.pools]]\nname = "a"\nnum_workers = 1\nengine = "mine.py:later"\n'
    )
    actors = load_config(file).actors
    assert (actors.engine, actors.by_pool["a"].engine) == (f"{mine}:load", f"{mine}:later")


def test_a_resumed_run_finds_the_file_elsewhere_under_its_name() -> None:
    def pools(engine: str | None) -> list[dict[str, Any]]:
        return [{"name": "a", "num_workers": 1, "engine": engine}]

    assert ChangedSetting("actors.engine", "/a/mine.py:load", "/b/mine.py:load").moved
    assert not ChangedSetting("actors.engine", "/a/mine.py:load", "/a/mine.py:later").moved
    assert ChangedSetting("actors.pools", pools("/a/mine.py:load"), pools("/b/mine.py:load")).moved
    assert not ChangedSetting("actors.pools", pools(None), pools("/b/mine.py:load")).moved


def config_with(engine: str, **actors: Any) -> RunConfig:
    return RunConfig.model_validate({"actors": {"engine": engine} | actors})


def test_plan_placement_and_silent_settings_ask_its_row() -> None:
    mine = config_with("/far/away/mine.py:load", lora_path="unmerged", vllm={"max_num_seqs": 8})
    assert silent_settings(mine) == [], "it is given all of [actors], and may read it"
    assert dict(plan_rows(mine, make_plan(mine)))["workers"] == "1 x mine.py:load engine"
    gpus = {bundle.part: bundle.gpus for bundle in place(mine, [Node("n", 8.0, 2.0)]).bundles}
    assert (gpus["worker"], gpus["learner"]) == (1, 1)
    assert mine.actors.rounds_small_updates, "of a bfloat16 engine that nobody knows"
    assert not mine.actors.merges_lora


def test_it_goes_with_a_model_and_without_one() -> None:
    assert config_with("mine.py:load").model.name != "scripted"
    RunConfig.model_validate({"model": {"name": "scripted"}, "actors": {"engine": "mine.py:load"}})
    with pytest.raises(ValueError, match="do not fit: the scripted engine has no model"):
        RunConfig.model_validate({"model": {"name": "scripted"}, "actors": {"engine": "vllm"}})
