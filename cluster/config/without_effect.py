"""Settings that change nothing where another one has switched off what they belong to: the one table of them.

Who reads it: silent_settings.py. A setting that is in no row always acts (tests/unit/cluster/test_silent_settings.py walks
them all), so a new one has to be put in a row or named there.
"""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory_service.encoder_name import is_hash
from memory_service.profiles import OF_THE_BONUS

if TYPE_CHECKING:
    from cluster.config.run_config import RunConfig

_PAID_ALONE: tuple[str, ...] = (
    *("variant", "window", "warmup", "warmup_unit", "explore_when_empty", "exploit_form", "normaliser_eps"),
    *("normaliser_range_floor", "raw_decimals", "order", "neighbours_k"),
    *("late_policy", "deadline_s", "exploit_formula", "explore_formula"),
)
"""Beside OF_THE_BONUS: what shapes or waits for a bonus and nothing that is kept, so `memr memory query` shows the same."""
_OF_EXPLORE = ("explore_when_empty", "explore_decay_steps", "explore_formula", "warmup", "warmup_unit")
_OF_A_MODEL: tuple[str, ...] = (
    *("device", "gpus", "shared_prefix", "micro_batch_tokens", "logprob_chunk_tokens", "lora_*", "learning_rate"),
    *("adam_*", "weight_decay", "max_grad_norm", "schedule", "warmup_share", "loss", "clip_*", "importance_cap"),
    *("loss_normalisation", "kl_*", "moving_average_decay", "entropy_weight", "mismatch_*"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """keys: names, * for all of a section; without: what of them acts anyway. switch: what turns them off, and why.
    acts: whether they act. refused: given by --set; what a run without a model, or without
    evaluation, ignores is said only: both are switches for a quick try of a line that has more."""

    keys: tuple[str, ...]
    switch: str
    acts: Callable[["RunConfig"], bool]
    without: tuple[str, ...] = ()
    refused: bool = True

    def covers(self, name: str) -> bool:
        return name not in self.without and any(fnmatch.fnmatchcase(name, key) for key in self.keys)


def _of(section: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names)


def _read_by_an_engine(setting: str) -> Callable[["RunConfig"], bool]:
    """Whether a kind of worker has an engine that reads this setting of [actors]."""
    return lambda config: any(setting in kind.engine_kind.reads for kind in config.actors.by_pool.values())


def _own_task(config: "RunConfig") -> bool:
    """A task of the user's is given all of [task], and may read it."""
    return ":" in config.task.kind


def _of_kind(kind: str) -> Callable[["RunConfig"], bool]:
    return lambda config: config.task.kind == kind or _own_task(config)


def _splits_by_hash(config: "RunConfig") -> bool:
    task = config.task
    given = task.held_out_path is not None or (task.hub_dataset is not None and task.hub_held_out_split is not None)
    return not (task.kind == "file" and given)


def _some_on_a_card(config: "RunConfig") -> bool:
    return any(kind.device != "cpu" for kind in config.actors.by_pool.values())


RULES = (
    Rule(("memory.*",), "memory.profile = 'off' keeps no memory", lambda c: c.memory.enabled, ("memory.profile",)),
    Rule(
        _of("memory", *OF_THE_BONUS, *_PAID_ALONE),
        "no bonus is paid (memory.profile = 'remember', or both weights are 0); memory.profile = 'memr' pays one",
        lambda c: c.memory.pays,
    ),
    Rule(
        _of("memory", "explore_weight", *_OF_EXPLORE),
        "memory.variant = 'memory_r' pays for exploit alone",
        lambda c: c.memory.uses_explore,
    ),
    Rule(
        _of("memory", *_OF_EXPLORE),
        "memory.explore_weight = 0",
        lambda c: c.memory.explore_weight > 0,
    ),
    Rule(
        _of("memory", "exploit_form", "exploit_formula"),
        "memory.exploit_weight = 0",
        lambda c: c.memory.exploit_weight > 0,
    ),
    Rule(
        _of("memory", "key_batch_groups"),
        "memory.key is not 'first_of_batch'",
        lambda c: c.memory.key == "first_of_batch",
    ),
    Rule(_of("memory", "cap_share"), "memory.mix = 'raw' has no cap", lambda c: c.memory.mix != "raw"),
    Rule(
        _of("memory", "no_signal_weight"),
        "memory.no_signal is not 'centred'",
        lambda c: c.memory.no_signal == "centred",
    ),
    Rule(
        _of("memory", "reasoning_tags"),
        "memory.response_span = 'full' embeds all of a response",
        lambda c: c.memory.response_span == "reasoning",
    ),
    Rule(
        _of("memory", "encoder_dtype", "long_text", "device", "gpus"),
        "memory.encoder = 'hash:..' has no model",
        lambda c: not is_hash(c.memory.encoder),
    ),
    Rule(_of("memory", "gpus"), "memory.device = 'cpu'", lambda c: c.memory.device == "cuda"),
    Rule(("actors.scripted.*",), "no worker has the engine 'scripted'", _read_by_an_engine("scripted")),
    Rule(("actors.vllm.*",), "no worker has the engine 'vllm'", _read_by_an_engine("vllm")),
    Rule(("actors.lora_path",), "no worker has the engine 'transformers'", _read_by_an_engine("lora_path")),
    Rule(
        ("actors.max_batch_rows",),
        "vLLM takes actors.vllm.max_num_seqs at once",
        _read_by_an_engine("max_batch_rows"),
    ),
    Rule(("actors.num_workers",), "[[actors.pools]] has the numbers of workers", lambda c: not c.actors.pools),
    Rule(
        ("actors.device", "actors.gpus_per_worker"),
        "the scripted engine has no model",
        lambda c: any(kind.engine_kind.uses_device for kind in c.actors.by_pool.values()),
        refused=False,
    ),
    Rule(
        _of("actors", "gpus_per_worker", "vllm.gpu_memory_utilization", "vllm.enforce_eager"),
        "actors.device = 'cpu'",
        _some_on_a_card,
    ),
    Rule(_of("task", "max_operand"), "task.kind is not 'arithmetic'", _of_kind("arithmetic")),
    Rule(_of("task", "generator", "generator_params"), "task.kind is not 'reasoning_gym'", _of_kind("reasoning_gym")),
    Rule(_of("task", "path", "held_out_path", "hub_*", "*_field"), "task.kind is not 'file'", _of_kind("file")),
    Rule(
        _of("task", "hub_config", "hub_split", "hub_held_out_split"),
        "the problems come from task.path, not from a hub dataset",
        lambda c: c.task.hub_dataset is not None or _own_task(c),
    ),
    Rule(
        _of("task", "held_out_share"),
        "the held-out problems come from task.held_out_path or task.hub_held_out_split",
        _splits_by_hash,
    ),
    Rule(
        _of("task", "max_turns"),
        "task.environment = 'single' has one turn",
        lambda c: c.task.environment == "retry" or _own_task(c),
    ),
    Rule(_of("task", "environment_timeout_s"), "no environment of your own is named by task.kind", _own_task),
    Rule(("learner.scripted.*",), "model.name is not 'scripted'", lambda c: c.model.scripted),
    Rule(
        _of("learner", *_OF_A_MODEL),
        "model.name = 'scripted' trains numbers that nobody samples with",
        lambda c: not c.model.scripted,
        refused=False,
    ),
    Rule(_of("learner", "gpus"), "learner.device = 'cpu'", lambda c: c.learner.device != "cpu"),
    Rule(
        _of("learner", "kl_estimator", "kl_reference", "moving_average_decay"),
        "learner.kl_weight = 0",
        lambda c: c.learner.kl_weight > 0,
    ),
    Rule(
        _of("learner", "moving_average_decay"),
        "learner.kl_reference = 'base'",
        lambda c: c.learner.kl_reference == "moving_average",
    ),
    Rule(
        _of("learner", "overlong_penalty"),
        "learner.overlong is not 'penalty'",
        lambda c: c.learner.overlong == "penalty",
    ),
    Rule(_of("learner", "clip_low"), "learner.loss = 'cispo' has no lower side", lambda c: c.learner.loss != "cispo"),
    Rule(
        ("eval.*",),
        "eval.problems = 0 turns evaluation off",
        lambda c: c.eval.problems > 0,
        ("eval.problems",),
        refused=False,
    ),
    Rule(_of("eval", "pass_at_k_problems"), "eval.pass_at_k = 0 turns pass@k off", lambda c: c.eval.pass_at_k > 0),
    Rule(
        ("cluster.autoscale.*",),
        "cluster.autoscale.enabled = false",
        lambda c: c.cluster.autoscale.enabled,
        ("cluster.autoscale.enabled",),
    ),
    Rule(("resources.*",), "resources.enabled = false", lambda c: c.resources.enabled, ("resources.enabled",)),
    Rule(
        _of("notify", "events"),
        "neither notify.urls nor notify.command is set",
        lambda c: c.notify.urls is not None or c.notify.command is not None,
    ),
)
