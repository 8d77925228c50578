"""Settings of the world: which problems, how they are put to the policy, how answers earn reward.

Loads without torch, Ray and transformers.
"""

import difflib
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.settings import Settings, constant

AnswerForm = Literal["number", "boxed", "think_answer"]
FORM_REWARDS = ("format", "soft_format", "integer", "xml_count")
"""Reward parts that look at the form of an answer and not at its value."""
REWARD_NAMES = ("correctness", *FORM_REWARDS, "cosine_length")


class RewardPart(Settings):
    """One named part of the task reward."""

    name: str = Field(description=f"{' | '.join(REWARD_NAMES)} | FILE.py:function | package.module:function")
    weight: float = Field(1.0, description="multiplies the part's value; the weighted parts are added up")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in REWARD_NAMES or ":" in name:
            return name
        close = difflib.get_close_matches(name, REWARD_NAMES, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(REWARD_NAMES)}."
        raise ValueError(
            f"unknown reward part '{name}'; {hint} A function of your own is named FILE.py:function or package.module:function"
        )


class TaskSettings(Settings):
    """`[task]`: problems, prompts, answer form, rewards, verifier."""

    operations: ClassVar = constant(("+", "-"), last="9962a33")
    """Of kind 'arithmetic'; differences are never negative."""
    verifier_memory_bytes: ClassVar = constant(4 * 2**30, last="09489b9")
    """Address space of one child process."""

    may_be_empty: ClassVar[frozenset[str]] = frozenset({"system_prompt"})

    kind: str = Field(
        "arithmetic", description="arithmetic | reasoning_gym | file | FILE.py:Class or package.module:Class (your own)"
    )
    seed: int = Field(
        0, ge=0, description="order (reasoning_gym: choice) of training problems; held-out problems do not depend on it"
    )
    num_train: int | None = Field(
        None, ge=1, description="use this many distinct training problems; unset: all there are"
    )
    held_out_share: float | None = Field(
        None, gt=0.0, lt=1.0, description="share of questions held out by hash; unset: 0.35 for arithmetic, else 0.1"
    )

    max_operand: int = Field(20, ge=1, le=1000, description="arithmetic: operands go from 0 to this")
    generator: str = Field("chain_sum", description="reasoning_gym: name of the generator")
    generator_params: dict[str, Any] = Field(
        default_factory=dict, description="reasoning_gym: parameters of the generator; your own task may read them too"
    )
    path: str | None = Field(None, description="file: training problems, .jsonl, .json, .csv or .parquet")
    held_out_path: str | None = Field(None, description="file: held-out problems; unset: a share of `path` by hash")
    hub_dataset: str | None = Field(None, description="file: hub dataset id instead of `path` (needs a network)")
    hub_config: str | None = Field(None, description="file: configuration of the hub dataset")
    hub_split: str = Field("train", description="file: split of the hub dataset with the training problems")
    hub_held_out_split: str | None = Field(None, description="file: split with the held-out problems; unset: by hash")
    question_field: str = Field(
        "question", description="file: key of the question, a text or a chat ('prompt' is found too)"
    )
    answer_field: str = Field("answer", description="file: key of the answer; 'reasoning #### 42' is understood")
    id_field: str = Field("id", description="file: key of a unique name; rows without it are named by a hash")

    answer_form: AnswerForm = Field(
        "number",
        description="number: the number that the text states; boxed: last \\boxed{}; think_answer: <think></think><answer></answer>; "
        "docs/answers.md",
    )
    system_prompt: str | None = Field(None, description="system message; unset: the answer form's own; '': none")
    worked_examples: int = Field(0, ge=0, le=16, description="solved problems put before the question as earlier turns")
    max_prompt_tokens: int = Field(256, ge=1, description="longest prompt allowed; checked before the first step")

    environment: Literal["single", "retry"] = Field(
        "single", description="single: one answer; retry: wrong answers may be mended in further turns"
    )
    environment_timeout_s: float = Field(
        30.0, gt=0.0, description="time for one step of your own environment; then the rollout is invalid"
    )
    max_turns: int = Field(3, ge=2, description="retry: most answers of one rollout")

    rewards: tuple[RewardPart, ...] = Field(
        (RewardPart(name="correctness"),), min_length=1, description="parts of the task reward with their weights"
    )
    scorer: str | None = Field(
        None,
        description="FILE.py:function or package.module:function that decides what is correct; unset: the task's own",
    )
    verifier_processes: int = Field(2, ge=1, description="most child processes that judge answers at once")
    verifier_timeout_s: float = Field(
        5.0,
        gt=0.0,
        description="time for one answer; twice over it, it is wrong, if the reference's own answer is judged",
    )

    @field_validator("rewards", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        known = ("arithmetic", "reasoning_gym", "file")
        if kind in known or ":" in kind:
            return kind
        close = difflib.get_close_matches(kind, known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}."
        raise ValueError(
            f"unknown kind '{kind}'; {hint} A task of your own is named FILE.py:Class or package.module:Class"
        )

    @field_validator("scorer")
    @classmethod
    def _names_a_function(cls, scorer: str | None) -> str | None:
        where, _, name = (scorer or "FILE.py:function").rpartition(":")
        if where and name:
            return scorer
        raise ValueError(f"'{scorer}' names no function; write FILE.py:function or package.module:function")

    @model_validator(mode="after")
    def _parts_are_distinct(self) -> "TaskSettings":
        names = [part.name for part in self.rewards]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rewards name {', '.join(repeated)} more than once; keep one entry and set its weight")
        return self

    @model_validator(mode="after")
    def _file_has_a_source(self) -> "TaskSettings":
        if self.kind == "file" and (self.path is None) == (self.hub_dataset is None):
            raise ValueError("kind 'file' needs exactly one source of problems: set path or hub_dataset")
        return self

    @model_validator(mode="after")
    def _retry_can_tell_right_from_wrong(self) -> "TaskSettings":
        if self.environment == "retry" and (self.kind == "reasoning_gym" or self.scorer is not None):
            raise ValueError(
                "environment 'retry' compares answers with the reference and cannot use a scorer: "
                "choose kind 'arithmetic' or 'file' without a scorer, or environment 'single'"
            )
        return self

    @property
    def split_share(self) -> float:
        """The held-out share in effect: small finite worlds give more, so that 200 problems can be held out."""
        if self.held_out_share is not None:
            return self.held_out_share
        return 0.35 if self.kind == "arithmetic" else 0.1
