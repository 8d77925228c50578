"""The profiles of `[memory]`: which defaults a name stands for. Loads without torch."""

from typing import Any, Literal

Profile = Literal["remember", "memr", "paper", "released_code", "off"]

_PAPER: dict[str, Any] = {
    "key": "per_problem",
    "order": "read_then_write",
    "exploit_form": "negative_distance",
    "normaliser_eps": 1e-8,
    "normaliser_range_floor": 0.0,
    "warmup_unit": "steps",
    "mix": "raw",
    "no_signal": "normalised",
    "all_correct_groups": "as_they_come",
}
_MEMR: dict[str, Any] = _PAPER | {
    "normaliser_range_floor": 1e-3,
    "mix": "scaled",
    "no_signal": "centred",
    "all_correct_groups": "off",
}
PROFILES: dict[str, dict[str, Any]] = {
    "remember": _MEMR | {"exploit_weight": 0.0, "explore_weight": 0.0},
    "memr": _MEMR,
    "paper": _PAPER,
    "released_code": _PAPER
    | {
        "key": "first_of_batch",
        "order": "write_then_read",
        "exploit_form": "one_minus_scaled_distance",
        "normaliser_eps": 0.0,
        "warmup_unit": "distinct_failed_questions",
        "warmup": 500,
        "explore_when_empty": 1.0,
    },
    "off": _PAPER,
}
OF_THE_BONUS = (
    "mix",
    "cap_share",
    "stage",
    "where",
    "no_signal",
    "no_signal_weight",
    "anneal_steps",
    "explore_decay_steps",
    "all_correct_groups",
)
"""Settings that say nothing where no bonus is paid."""
RELEASED_MEMORY_R: dict[str, Any] = {"max_responses_per_query": 1000}
"""The published code keeps 1,000 responses where it gives exploit alone, 100 where it gives both."""

MIXES_OF_57C9E8C: dict[Any, dict[str, Any]] = {
    "raw_sum": {"mix": "raw", "stage": "before_normalisation"},
    "capped": {"mix": "capped", "stage": "before_normalisation"},
    "after_normalisation": {"mix": "raw", "stage": "after_normalisation"},
}
"""What `mix` said until then, in today's words. Such a file knows no `no_signal`: every group was normalised."""
