"""Settings of the episodic memory: every row of docs/algorithms.md, Episodic memory, is one of them.

`profile` fills in whatever the user did not write; any row may be set beside it. docs/algorithms.md
explains each choice. Loads without torch and faiss.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.bonus_rule import BonusRule, NoSignal, Where
from contracts.settings import Settings, UsersCode, constant, derived
from memory_service.encoder_name import HASH_PREFIX, hash_dimension, is_hash
from memory_service.profiles import MIXES_OF_57C9E8C, OF_THE_BONUS, PROFILES, RELEASED_MEMORY_R, Profile

ExploitFormula = Literal["distance_to_mean"]
ExploreFormula = Literal["nearest_cosine", "knn_entropy"]


class MemorySettings(Settings):
    """`[memory]`: what is remembered, how it becomes intrinsic reward, what happens when memory is late."""

    encoder_batch_texts: ClassVar = constant(64, last="09489b9")
    """Texts per encoder batch."""
    index: ClassVar = constant("faiss_flat", last="9962a33")
    """Search is exact."""

    profile: Profile = Field(
        "remember",
        description="remember (keeps and reads, pays no bonus) | memr | paper | released_code | off (no memory at all)",
    )
    variant: Literal["memory_r_plus", "memory_r"] = Field(
        "memory_r_plus", description="memory_r_plus: exploit and explore; memory_r: exploit alone"
    )

    encoder: str = Field("all-MiniLM-L6-v2", description="sentence-transformers name, hub id or folder")
    encoder_dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of the encoder's weights")
    response_span: Literal["reasoning", "full"] = Field(
        "reasoning", description="what of a response is embedded: its reasoning (whole text where absent), or all"
    )
    reasoning_tags: tuple[str, str] = Field(
        ("<think>", "</think>"), description="what opens and closes the reasoning; the paper's code has <reasoning>"
    )
    long_text: Literal["cut", "mean_of_windows"] = Field(
        "cut", description="texts beyond the encoder's window: cut them, or average the embeddings of their windows"
    )

    max_queries: int = Field(10_000, ge=1, description="N: stored questions per memory; the oldest goes first")
    max_responses_per_query: int = Field(
        100,
        ge=1,
        description="L: stored responses per question; the oldest go first (released_code with memory_r: 1000)",
    )
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
    exploit_formula: ExploitFormula | UsersCode = Field(
        "distance_to_mean",
        description="what a success makes of an answer: -|a - c|, c their mean | your own as FILE.py:name",
    )
    explore_formula: ExploreFormula | UsersCode = Field(
        "nearest_cosine",
        description="what failures make of an answer: 1 - the largest cosine | knn_entropy: log(1 + distance to the 3rd "
        "nearest) | your own as FILE.py:name",
    )
    exploit_form: Literal["negative_distance", "one_minus_scaled_distance"] = Field(
        "negative_distance", description="min-max of -|a - c|, or 1 - min-max of |a - c|"
    )
    raw_decimals: Annotated[int, Field(ge=0, le=15)] | Literal["off"] = Field(
        9,
        description='distances and cosines are rounded to so many decimals; "off": float32 with its rounding noise, which '
        "the published code stretches into reward",
    )
    normaliser_eps: float = Field(1e-8, ge=0.0, description="added to the min-max range; 0 in the released code")
    normaliser_range_floor: float = Field(
        1e-3,
        ge=0.0,
        description="a window whose range is below this gives 0.5 to all: silent after group normalisation",
    )
    mix: Literal["raw", "scaled", "capped"] = Field(
        "scaled",
        description="raw: weighted sum; scaled: weighted mean times cap_share of what a right answer earns; capped: weighted "
        "sum cut at cap_share, which nearly always cuts it: kept so that runs of 57c9e8c resume, and as a control",
    )
    cap_share: float = Field(
        0.5, gt=0.0, description="scaled: largest bonus over what a right answer earns, below 1; capped: over 1.0"
    )
    stage: Literal["before_normalisation", "after_normalisation"] = Field(
        "before_normalisation", description="add the bonus to the reward, or, centred, to the normalised advantage"
    )
    where: Literal["everywhere", "no_task_signal", "right_answers", "wrong_answers"] = Field(
        "everywhere", description="rollouts that earn a bonus; no_task_signal: groups whose task rewards are all equal"
    )
    no_signal: Literal["centred", "normalised"] = Field(
        "centred",
        description="groups whose task rewards are all equal: advantage = no_signal_weight x (bonus - mean), or normalised "
        "like any other, which makes a full advantage of the smallest difference",
    )
    no_signal_weight: float = Field(1.0, ge=0.0, description="no_signal = centred: advantage per unit of bonus")
    anneal_steps: float | None = Field(
        None, gt=0.0, description="the whole bonus times max(0, 1 - policy version / anneal_steps); unset: no annealing"
    )
    all_correct_groups: Literal["off", "as_they_come"] = Field(
        "off", description="groups with nothing but correct answers: no bonus, or as any other"
    )

    deadline_s: float = Field(60.0, gt=0.0, description="seconds a group may wait for its intrinsic rewards")
    late_policy: Literal["wait", "zero"] = Field(
        "wait", description="a group past the deadline: keep waiting, or train it as a whole without bonus; counted"
    )
    torch_threads: int = Field(1, ge=1, description="CPU threads of the memory process")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where the encoder runs; never chosen by itself, so that a replay gives the same rewards"
    )
    gpus: float = Field(0.1, gt=0.0, le=1.0, description="device = cuda: share of a GPU that is kept for the encoder")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        profile = values.get("profile", "remember")
        rows = PROFILES.get(profile, {}) if isinstance(profile, str) else {}
        if profile == "released_code" and values.get("variant") == "memory_r":
            rows = rows | RELEASED_MEMORY_R
        return rows | _in_todays_words(values)

    @field_validator("encoder")
    @classmethod
    def _hash_has_a_dimension(cls, value: str) -> str:
        if f"{value}:" == HASH_PREFIX or (is_hash(value) and hash_dimension(value) is None):
            raise ValueError(f"'{value:.80}': a hash encoder has 2 to 65536 dimensions, for example {HASH_PREFIX}64")
        return value

    @field_validator("reasoning_tags", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("reasoning_tags")
    @classmethod
    def _tags_can_be_found(cls, value: tuple[str, str]) -> tuple[str, str]:
        if not all(value):
            raise ValueError('a tag is empty; name both, as in ["<think>", "</think>"]')
        return value

    @model_validator(mode="after")
    def _no_bonus_outweighs_a_right_answer(self) -> "MemorySettings":
        if self.mix == "scaled" and self.cap_share >= 1.0:
            raise ValueError(
                f"cap_share is {self.cap_share:g}: from 1.0 on a wrong answer that memory likes may earn more than a right "
                "one. Keep it below 1.0, or take mix = 'raw' for the paper's sum without a bound"
            )
        return self

    @model_validator(mode="after")
    def _shapes_no_bonus_that_is_not_paid(self) -> "MemorySettings":
        if self.profile != "remember" or self.exploit_weight or self.explore_weight:
            return self
        silent = {name: type(self).model_fields[name].get_default() for name in OF_THE_BONUS} | PROFILES["remember"]
        if changed := [name for name in OF_THE_BONUS if getattr(self, name) != silent[name]]:
            raise ValueError(
                f"{', '.join(changed)} would change nothing: profile 'remember' pays no bonus. Set memory.profile = 'memr' "
                f"beside it, or leave {'it' if len(changed) == 1 else 'them'} out"
            )
        return self

    @derived(last="9962a33", instead="It follows from order: leave it out, or set order = 'write_then_read'")
    def own_group_as_neighbours(self) -> bool:
        """Whether a group meets its own rollouts among its neighbours: reading first never does, writing first always."""
        return self.order == "write_then_read"

    @property
    def enabled(self) -> bool:
        return self.profile != "off"

    @property
    def pays(self) -> bool:
        """Whether any policy version may earn a bonus; else the advantages are those of profile "off", byte for byte."""
        _, end = self._switched_on
        return end > 0

    def kept_of(self, before: "MemorySettings") -> list[str]:
        """Where the profile is another than before and nothing that tells the two apart has changed with it: the names of
        that. A stored configuration names every setting, so that another profile fills in none. Empty: whole."""
        if self.profile in (before.profile, "off"):
            return []
        old, new = (MemorySettings(profile=profile, variant=self.variant) for profile in (before.profile, self.profile))
        telling = [name for name in type(self).model_fields if getattr(old, name) != getattr(new, name)]
        telling.remove("profile")
        return telling if all(getattr(self, name) == getattr(before, name) for name in telling) else []

    @property
    def uses_explore(self) -> bool:
        return self.variant == "memory_r_plus"

    @property
    def decimals(self) -> int | None:
        """`raw_decimals`, None where nothing is rounded."""
        return None if self.raw_decimals == "off" else self.raw_decimals

    @property
    def bonus_rule(self) -> BonusRule:
        """What of these settings the learner applies."""
        first, end = self._switched_on
        return BonusRule(
            where=Where(self.where),
            no_signal=NoSignal(self.no_signal),
            no_signal_weight=self.no_signal_weight,
            all_correct=self.all_correct_groups == "as_they_come",
            keeps_order=self.mix == "scaled",
            from_version=first,
            until_version=end,
        )

    @property
    def _switched_on(self) -> tuple[int, float]:
        """First policy version that may earn a bonus, and the first that may no more. A warm-up in failed questions has no
        version: it counts as over."""
        explores = self.uses_explore and self.explore_weight > 0
        if not self.enabled or (self.exploit_weight == 0 and not explores):
            return 0, 0.0
        waits = self.exploit_weight == 0 and self.warmup_unit == "steps"
        return self.warmup if waits else 0, math.inf if self.anneal_steps is None else self.anneal_steps


def _in_todays_words(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of commit 57c9e8c read as what they did there, unless the new keys stand beside them."""
    mix = values.get("mix")
    words = MIXES_OF_57C9E8C.get(mix) if isinstance(mix, str) else None
    if words is None:
        return values
    return {"no_signal": "normalised"} | words | values | {"mix": words["mix"]}
