"""`memr eval`: held-out accuracy in this process, without Ray: the same worker, verifier and arithmetic as in a run."""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.load import EngineNeeds, load_worker_tokenizer, start_engine
from actors.rollout_worker import RolloutWorker
from cluster.config.run_config import RunConfig, load_config
from cluster.config.run_folder import is_run
from cluster.flow.evaluation import EvalPlan, eval_leases, evaluate_groups
from cluster.launch.context_budget import find_room
from cluster.launch.early_checks import refuse_missing_files
from cluster.launch.environment import apply_environment
from cluster.launch.model_store import resolve_model
from cluster.record.adapter_registry import adapter_folder, read_adapter
from cluster.record.resume import refuse_other_prompts
from cluster.record.run_view import read_run
from contracts.adapter import Adapter
from contracts.errors import ConfigError
from contracts.ports import Tokenizer
from contracts.problem import Sampling
from contracts.rollout import RolloutGroup
from tasks.load import load_task, make_verifier
from tasks.prompts import check_prompt_lengths
from tasks.task_data import too_few


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """max_new_tokens: None is the configuration's. samples: 1 is greedy, more is pass@samples."""

    problems: int
    max_new_tokens: int | None = None
    samples: int = 1


def evaluate_target(
    target: str,
    request: EvalRequest,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
    policy_version: int | None = None,
) -> dict[str, Any]:
    """The EvalReport of one of a run's adapters, or of a model without one, as a dictionary.

    policy_version: None is the newest that the run keeps."""
    config, model_path, adapter = _what_to_evaluate(target, config_path, overrides, unset, policy_version)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    if is_run(Path(target)):
        refuse_other_prompts(Path(target), tokenizer)
    return asyncio.run(_evaluate(config, model_path, tokenizer, adapter, request))


async def _evaluate(
    config: RunConfig,
    model_path: str,
    tokenizer: Tokenizer,
    adapter: Adapter,
    request: EvalRequest,
) -> dict[str, Any]:
    task = load_task(config.task)
    limit = request.max_new_tokens or config.eval_max_new_tokens
    asked = task.held_out(request.problems)
    if not asked:
        raise ConfigError(f"nothing to evaluate: {too_few(0, request.problems, '--problems')[0]}")
    prompt = check_prompt_lengths(asked, tokenizer, config.task.max_prompt_tokens).max
    room = find_room(config, tokenizer, model_path, prompt, answer=limit)
    needs = EngineNeeds(config.learner.lora_r, room, start_s=config.cluster.worker_start_s)
    verifier = make_verifier(config.task)
    engine = await start_engine(config.actors, model_path, tokenizer, needs)
    worker = RolloutWorker(
        worker_id="eval",
        engine=engine,
        tokenizer=tokenizer,
        task=task,
        verifier=verifier,
        settings=config.actors,
    )
    await worker.adopt(adapter)
    temperature = 0.0 if request.samples == 1 else config.actors.temperature
    sampling = Sampling(temperature, limit)
    version = adapter.manifest.policy_version
    plan = EvalPlan(version, version, request.samples, sampling)
    leases = eval_leases(plan, asked, -1, config.run.seed, config.actors.lease_deadline_s)
    size = max(1, config.actors.window_rows // request.samples)
    groups: list[RolloutGroup] = []
    try:
        for start in range(0, len(leases), size):
            groups += await worker.sample(leases[start : start + size])
    finally:
        verifier.close()
        engine.close()
    return dataclasses.asdict(evaluate_groups(plan, groups))


def _what_to_evaluate(
    target: str,
    config_path: Path | None,
    overrides: Sequence[str],
    unset: Sequence[str],
    policy_version: int | None,
) -> tuple[RunConfig, str, Adapter]:
    if is_run(Path(target)):
        run = read_run(Path(target))
        config = load_config(config_path or run.path / "config.toml", overrides, unset)
        refuse_missing_files(config)
        apply_environment(config.cluster.env)
        return config, run.model_path, read_adapter(adapter_folder(run.path / "adapters", policy_version))
    if config_path is None:
        raise ConfigError(
            f"{target} is not a run: to evaluate a model give its task too, --config configs/quickstart.toml"
        )
    if policy_version is not None:
        raise ConfigError(f"--policy-version {policy_version}: {target} is not a run, and only a run has versions")
    config = load_config(config_path, [*overrides, f"model.name={target}"], unset)
    refuse_missing_files(config)
    apply_environment(config.cluster.env)
    model_path = resolve_model(target)
    return config, model_path, _untrained(config, model_path)


def _untrained(config: RunConfig, model_path: str) -> Adapter:
    """Version 0, B = 0: the engine is never asked for the model without an adapter."""
    from learner.load import load_learner

    return load_learner(config.learner, model_path, config.run.seed, "", (), config.actors.max_new_tokens).publish()
