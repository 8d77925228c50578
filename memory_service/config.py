"""Settings of the episodic memory: every row of docs/algorithms.md, section 4, is one of them.

`profile` fills in whatever the user did not write; any row may be set beside it. docs/algorithms.md
explains each choice. Loads without torch and faiss.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from contracts.settings import Settings

Profile = Literal["memr", "paper", "released_code", "off"]

_PAPER: dict[str, Any] = {
    "key": "per_problem",
    "order": "read_then_write",
    "exploit_form": "negative_distance",
    "normaliser_eps": 1e-8,
    "normaliser_range_floor": 0.0,
    "warmup_unit": "steps",
    "mix": "raw_sum",
    "own_group_as_neighbours": False,
    "all_correct_groups": "as_they_come",
}
_PROFILES: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    "released_code": _PAPER
    | {
        "key": "first_of_batch",
        "order": "write_then_read",
        "exploit_form": "one_minus_scaled_distance",
        "normaliser_eps": 0.0,
        "warmup_unit": "distinct_failed_questions",
        "warmup": 500,
        "own_group_as_neighbours": True,
        "explore_when_empty": 1.0,
    },
    "memr": _PAPER | {"normaliser_range_floor": 1e-3, "mix": "capped", "all_correct_groups": "off"},
    "off": _PAPER,
}


class MemorySettings(Settings):
    """`[memory]`: what is remembered, how it becomes intrinsic reward, what happens when memory is late."""

    profile: Profile = Field("memr", description="memr | paper | released_code | off (no memory, plain GRPO)")
    variant: Literal["memory_r_plus", "memory_r"] = Field(
        "memory_r_plus", description="memory_r_plus: exploit and explore; memory_r: exploit alone"
    )

    encoder: str = Field("all-MiniLM-L6-v2", description="sentence-transformers name, hub id or folder")
    encoder_dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of the encoder's weights")
    encoder_batch_texts: int = Field(64, ge=1, description="texts per encoder batch")
    response_span: Literal["reasoning", "full"] = Field(
        "reasoning", description="what of a response is embedded: the <think> span (whole text where absent), or all"
    )
    long_text: Literal["cut", "mean_of_windows"] = Field(
        "cut", description="texts beyond the encoder's window: cut them, or average the embeddings of their windows"
    )
    index: Literal["faiss_flat", "numpy"] = Field("faiss_flat", description="exact search; numpy is the slow oracle")

    max_queries: int = Field(10_000, ge=1, description="N: stored questions per memory; the oldest goes first")
    max_responses_per_query: int = Field(100, ge=1, description="L: stored responses per question; the oldest go first")
    neighbours_k: int = Field(1, ge=1, description="K: nearest questions whose responses a read unites")
    explore_when_empty: float = Field(
        0.0, ge=0.0, le=1.0, description="explore reward where no failure is known yet; it does not enter the window"
    )
    window: int = Field(100, ge=1, description="w: values in the sliding min-max window of each intrinsic reward")
    exploit_weight: float = Field(1.0, ge=0.0, description="beta_s")
    explore_weight: float = Field(1.0, ge=0.0, description="beta_e")
    explore_decay_steps: float | None = Field(
        None, gt=0.0, description="d: explore weight times d / (d + policy version); unset: no decay"
    )
    warmup: int = Field(0, ge=0, description="explore is 0 until this many `warmup_unit`s have passed")
    warmup_unit: Literal["steps", "distinct_failed_questions"] = Field("steps", description="what warm-up counts")

    key: Literal["per_problem", "first_of_batch"] = Field("per_problem", description="which question keys a group")
    key_batch_groups: int = Field(2, ge=1, description="groups that share a key under key = first_of_batch")
    order: Literal["read_then_write", "write_then_read"] = Field(
        "read_then_write", description="read the whole group, then write it; or write and read response by response"
    )
    exploit_form: Literal["negative_distance", "one_minus_scaled_distance"] = Field(
        "negative_distance", description="min-max of -|a - c|, or 1 - min-max of |a - c|"
    )
    normaliser_eps: float = Field(1e-8, ge=0.0, description="added to the min-max range; 0 in the released code")
    normaliser_range_floor: float = Field(
        1e-3,
        ge=0.0,
        description="a window whose range is below this gives 0.5 to all: silent after group normalisation",
    )
    mix: Literal["raw_sum", "capped", "after_normalisation"] = Field(
        "capped", description="add the bonus raw, capped by cap_share, or to the normalised advantage"
    )
    cap_share: float = Field(
        0.5, gt=0.0, description="mix = capped: most bonus, as a share of the reward for a correct answer (1.0)"
    )
    all_correct_groups: Literal["off", "as_they_come"] = Field(
        "off", description="groups with nothing but correct answers: no bonus, or as any other"
    )
    own_group_as_neighbours: bool = Field(False, description="may a group meet its own rollouts (released code: yes)")

    deadline_s: float = Field(60.0, gt=0.0, description="seconds a group may wait for its intrinsic rewards")
    late_policy: Literal["wait", "zero"] = Field(
        "wait", description="a group past the deadline: keep waiting, or train it as a whole without bonus; counted"
    )
    torch_threads: int = Field(1, ge=1, description="CPU threads of the memory process")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        rows = _PROFILES.get(values.get("profile", "memr"), {})
        return rows | values

    @model_validator(mode="after")
    def _own_group_needs_write_first(self) -> "MemorySettings":
        if self.own_group_as_neighbours != (self.order == "write_then_read"):
            raise ValueError(
                "own_group_as_neighbours follows from order: reading first never meets the own group, writing first "
                "always does; set both (order = 'write_then_read', own_group_as_neighbours = true) or neither"
            )
        return self

    @property
    def enabled(self) -> bool:
        return self.profile != "off"

    @property
    def uses_explore(self) -> bool:
        return self.variant == "memory_r_plus"
