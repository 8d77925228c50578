"""What a configuration amounts to, before anything starts. Pure: settings in, numbers out.

Loads without torch and Ray. `memr plan` prints it; `memr train` prints its first lines.
"""

from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.config.turn_tokens import replies_text, turns_text
from cluster.watch.resources.projection import memory_bytes, size
from loading.dotted_path import short_name


@dataclass(frozen=True, slots=True)
class Plan:
    """Derived values. rollouts and tokens are upper bounds of one update, tokens those that the policy writes; bytes are
    estimates. threads: of one process, and how many processes there are, by part."""

    problems_per_update: int
    rollouts_per_update: int
    max_tokens_per_update: int
    num_updates: int
    total_rollouts: int
    max_policy_lag: int
    slots: int
    memory_bytes_expected: int
    threads: dict[str, tuple[int, int]]


def make_plan(config: RunConfig, encoder_dimension: int = 384) -> Plan:
    """encoder_dimension: 384 is all-MiniLM-L6-v2's."""
    rollouts = config.cluster.groups_per_batch * config.actors.rollouts_per_group
    total = rollouts * config.learner.num_updates
    memory = config.memory
    counts = {pool.name: pool.num_workers for pool in config.actors.pools}
    threads = {
        name: (kind.torch_threads, counts.get(name, kind.num_workers)) for name, kind in config.actors.by_pool.items()
    }
    threads["learner"] = (config.learner.torch_threads, 1)
    if memory.enabled:
        threads["memory"] = (memory.torch_threads, 1)
    return Plan(
        problems_per_update=config.cluster.groups_per_batch,
        rollouts_per_update=rollouts,
        max_tokens_per_update=rollouts * config.actors.max_new_tokens,
        num_updates=config.learner.num_updates,
        total_rollouts=total,
        max_policy_lag=config.learner.max_policy_lag,
        slots=config.slots,
        memory_bytes_expected=memory_bytes(config, encoder_dimension),
        threads=threads,
    )


def plan_rows(config: RunConfig, plan: Plan) -> list[tuple[str, str]]:
    """Name and value, ready to show."""
    lag = "synchronous, deterministic" if plan.max_policy_lag == 0 else "asynchronous"
    return [
        ("model", f"{config.model.name}, LoRA r {config.learner.lora_r}, {config.learner.dtype}"),
        (
            "task",
            f"{config.task.kind}, answers as '{config.task.answer_form}', at most {config.actors.max_new_tokens} tokens"
            f"{turns_text(config)}",
        ),
        (
            "one update",
            f"{plan.problems_per_update} problems x {config.actors.rollouts_per_group} rollouts = "
            f"{plan.rollouts_per_update} rollouts, at most {plan.max_tokens_per_update:,} tokens"
            f"{replies_text(config, plan.rollouts_per_update)}",
        ),
        ("the run", f"{plan.num_updates} updates, {plan.total_rollouts:,} rollouts"),
        ("staleness", f"lag at most {plan.max_policy_lag} ({lag}); {plan.slots} problems in flight"),
        ("workers", _workers_text(config)),
        ("memory", _memory_text(config, plan)),
        (
            "evaluation",
            f"{config.eval.problems} held-out problems before, after and every {config.eval.every_updates or '-'} updates",
        ),
        ("threads", ", ".join(_threads_text(name, *counts) for name, counts in plan.threads.items())),
    ]


def _threads_text(part: str, threads: int, processes: int) -> str:
    return f"{part} {threads}" if processes == 1 else f"{part} {processes} x {threads}"


def _workers_text(config: RunConfig) -> str:
    if not config.actors.pools:
        return f"{config.actors.num_workers} x {short_name(config.actors.engine)} engine"
    kinds = config.actors.by_pool
    return ", ".join(
        f"{pool.num_workers} x {pool.name} ({short_name(kinds[pool.name].engine)} engine)"
        for pool in config.actors.pools
    )


def _memory_text(config: RunConfig, plan: Plan) -> str:
    memory = config.memory
    if not memory.enabled:
        return "off: the task reward alone (plain GRPO)"
    name = "Memory-R+" if memory.uses_explore else "Memory-R"
    paid = "" if memory.pays else ", pays no bonus"
    return (
        f"{name}, profile {memory.profile}{paid}, {memory.encoder}, K {memory.neighbours_k}, at most "
        f"{size(plan.memory_bytes_expected)}"
    )
