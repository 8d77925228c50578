"""Whether the learner reads a model as the model reads itself: on this very model, before the first update.

    a ramp in the place of the output head's logits                      a model that changes them is refused (head_output.py)
    two prompts of different length, three rows
      -> the model's own forward and eager attention, one row at a time  what is right
      -> padded rows                                                     the model is refused where they differ
      -> each prompt once for its rows (learner.shared_prefix)           plain rows train where they differ

Log-probs are compared in float32 whatever the data type, so that rounding hides nothing. A gradient takes the model's own
data type (another would need a second copy of the weights): there the padded rows' own difference is the yardstick.
One sequence would show nothing: laid out flat it is the plain sequence, and a layer that reads over the edge of a row, as
convolutions and linear attention do, passes.

Shape letters: P prompt tokens, T tokens after the prompt, N policy tokens of all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from contracts.errors import DataError
from learner import packed_attention
from learner.packing import MicroBatch, TrainRow, pack
from learner.token_table import TokenTable
from loading.load_errors import out_of_memory

PROMPT_LENGTHS, ROW_LENGTHS = (5, 9), ((7, 4), (6,))
"""Two prompts; two rows of the first, one of the second."""

LARGEST_LOGPROB_GAP = 5e-3
"""Nats, in float32. Rounding: 2e-5 on the packaged 135M model, 1e-6 to 2e-4 on toys. Rows that see each other: 0.1 and more."""

GRADIENT_GAP = {"float32": 5e-3, "bfloat16": 0.5}
"""Relative L2 difference that padded rows may have. A wrong gradient: 0.6 to 1.5; rounding in bfloat16: 0.06 to 0.17 on the
packaged 135M model (sdpa against eager), 0.02 on toys."""

ROUNDING_FACTOR, ROUNDING_FLOOR = 3.0, {"float32": 1e-3, "bfloat16": 0.1}
"""The gradient of shared prompts may be this many times as far off as that of padded rows, or the floor."""

DRAWS = 4
"""Of tokens, as long as the log-probs agree and the gradient does not: rounding may send one token to another expert, which
one draw shows and the next does not; what is wrong is wrong in all of them."""

FAILURES = (ValueError, TypeError, AttributeError, RuntimeError, LookupError, AssertionError)
"""What a model's own code raises when it meets a layout that it was not written for."""


class Subject(Protocol):
    """The policy, as far as it is checked; its adapter is off or untrained, its dropout off."""

    base_model: str
    shares_prompts: bool

    @property
    def dtype_name(self) -> str: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def adapter_parameters(self) -> Mapping[str, nn.Parameter]: ...
    def own_logprobs(self, row: TrainRow) -> Tensor: ...
    def changed_output(self) -> str: ...
    def score(self, batch: MicroBatch) -> tuple[TokenTable, Tensor, Tensor]: ...
    def attend_with(self, implementation: str) -> None: ...
    def computed_in(self, dtype_name: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """logprob_N: float32, rows in the order of `check_rows`. gradients: of their weighted sum, by parameter."""

    logprob_N: Tensor
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Gap:
    """logprob: largest difference in nats. gradient: relative L2 difference. failed: what was raised instead."""

    logprob: float
    gradient: float
    failed: str = ""

    @property
    def same_logprobs(self) -> bool:
        return self.logprob <= LARGEST_LOGPROB_GAP

    def within(self, gradient_limit: float) -> bool:
        return self.same_logprobs and self.gradient <= gradient_limit

    def __str__(self) -> str:
        if self.failed:
            return f"its own code does not take such rows ({self.failed})"
        return f"log-probs differ by up to {self.logprob:.2g} nats and the gradient by {self.gradient:.0%}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How rows are to be read. why_plain: although shared prompts were asked for. refused: no way is right.
    by_gradient: the gradient alone was against it."""

    attention: str
    shares_prompts: bool = False
    why_plain: str = ""
    refused: str = ""
    by_gradient: bool = False


def settle(policy: Subject, config: PretrainedConfig, wants_shared: bool) -> str:
    """Sets the policy's attention and `shares_prompts`; returns why plain rows train although shared ones were asked for.

    Raises DataError where not even plain rows give the model's own numbers.
    """
    packed_attention.register()
    verdict = Verdict("eager", refused=_changed_output(policy))
    for seed in () if verdict.refused else range(DRAWS):
        verdict = judge(policy, config, wants_shared, seed)
        if not verdict.by_gradient:
            break
    if verdict.refused:
        raise DataError(
            f"{policy.base_model}: the learner does not read this model (type {config.model_type}) as its own forward does: "
            f"{verdict.refused}. Log-probs are taken from hidden states and the output head alone, so a model that "
            "post-processes logits (soft caps, scales) cannot be trained. Choose another base model"
        )
    policy.attend_with(verdict.attention)
    policy.shares_prompts = verdict.shares_prompts
    return verdict.why_plain and f"{verdict.why_plain} (model type {config.model_type})"


def _changed_output(policy: Subject) -> str:
    """Empty also where the model's own forward fails, which `_own` tells of."""
    with suppress(*FAILURES):
        return policy.changed_output()
    return ""


def judge(policy: Subject, config: PretrainedConfig, wants_shared: bool, seed: int) -> Verdict:
    """By one draw of tokens."""
    groups, limit = check_rows(policy.vocabulary, seed), GRADIENT_GAP[policy.dtype_name]
    right = _own(policy, groups)
    attention, plain = packed_attention.NAME, _gap(policy, groups, right, packed_attention.NAME, share=False)
    why = ""
    if not plain.same_logprobs:
        why = f"only eager attention gives its own numbers: {plain}"
        attention, plain = "eager", _gap(policy, groups, right, "eager", share=False)
    if not plain.within(limit):
        return Verdict(attention, refused=str(plain), by_gradient=plain.same_logprobs)
    if not wants_shared or why:
        return Verdict(attention, why_plain=why if wants_shared else "")
    if kinds := _other_layers(config):
        return Verdict(attention, why_plain=f"it has layers of type {kinds}")
    shared = _gap(policy, groups, right, attention, share=True)
    if shared.within(max(ROUNDING_FLOOR[policy.dtype_name], ROUNDING_FACTOR * plain.gradient)):
        return Verdict(attention, shares_prompts=True)
    return Verdict(attention, why_plain=str(shared), by_gradient=shared.same_logprobs)


def check_rows(vocabulary: int, seed: int) -> list[list[TrainRow]]:
    """Grouped by prompt; tokens spread over the vocabulary, each a policy token."""
    random = np.random.default_rng(seed)
    groups = []
    for prompt_length, lengths in zip(PROMPT_LENGTHS, ROW_LENGTHS, strict=True):
        prompt_P = random.integers(0, vocabulary, prompt_length).astype(np.int32)
        groups.append([_row(prompt_P, random.integers(0, vocabulary, n).astype(np.int32)) for n in lengths])
    return groups


def refuse_conv1d(model: nn.Module, base_model: str) -> None:
    """Raises DataError for GPT-2 and its kin: their layers are no nn.Linear, and no engine adapts them."""
    found = next((name for name, module in model.named_modules() if isinstance(module, Conv1D)), None)
    if found is not None:
        raise DataError(
            f"{base_model}: its layers ({found} and others) are transformers' Conv1D, as GPT-2's are; adapters go on nn.Linear "
            "layers alone. Choose a base model of another family"
        )


def _own(policy: Subject, groups: Sequence[Sequence[TrainRow]]) -> Reading:
    """By the model's own forward of one row at a time, with the attention that defines the model."""
    with suppress(ValueError):  # of a model that has no eager attention: its own stays
        policy.attend_with("eager")
    rows = [row for group in groups for row in group]
    try:
        return _reading(policy, lambda: [policy.own_logprobs(row) for row in rows])
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise
        raise DataError(
            f"{policy.base_model}: with an adapter on it the model's own forward fails on a few tokens: "
            f"{type(error).__name__}: {error}. Name plain linear layers in learner.lora_targets (some routers of experts are "
            "none), or choose another base model"
        ) from error


def _gap(policy: Subject, groups: Sequence[Sequence[TrainRow]], right: Reading, attention: str, *, share: bool) -> Gap:
    policy.shares_prompts = share
    (batch,) = pack(groups, 10_000, share)
    order = {id(row): i for i, row in enumerate(batch.rows)}
    where = [order[id(row)] for group in groups for row in group]

    def read() -> list[Tensor]:
        table, logprob_N, _ = policy.score(batch)
        return [logprob_N[table.row_N == i] for i in where]

    try:
        policy.attend_with(attention)
        ours = _reading(policy, read)
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise
        return Gap(np.inf, np.inf, f"{type(error).__name__}: {error}")
    return Gap(float((ours.logprob_N - right.logprob_N).abs().max()), _relative(ours.gradients, right.gradients))


def _reading(policy: Subject, read: Callable[[], list[Tensor]]) -> Reading:
    with torch.no_grad(), policy.computed_in("float32"):
        exact_N = torch.cat(read()).float()
    parts = read()
    # Weights that change sign within a row: what one row gains another must not cancel.
    total = torch.stack([(part * torch.linspace(1, -0.5, len(part), device=part.device)).sum() for part in parts]).sum()
    parameters = policy.adapter_parameters
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    gradients = zip(parameters, found, strict=True)
    return Reading(exact_N, {name: gradient for name, gradient in gradients if gradient is not None})


def _relative(ours: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """|ours - right| / |right| over all parameters; one that is missing is 0."""
    apart = [_minus(ours.get(name), right.get(name)).norm() for name in {*ours, *right}]
    size = float(torch.stack([gradient.float().norm() for gradient in right.values()]).norm())
    return float(torch.stack(apart).norm()) / size if size > 0 else float(bool(ours))


def _minus(a: Tensor | None, b: Tensor | None) -> Tensor:
    if a is None or b is None:
        one = b if a is None else a
        assert one is not None
        return one.float()
    return a.float() - b.float()


def _other_layers(config: PretrainedConfig) -> str:
    """Empty where the configuration names full attention alone: windows longer than the check's rows show here."""
    kinds = {str(kind) for kind in getattr(config, "layer_types", None) or ()} - {"full_attention", "attention"}
    return ", ".join(sorted(kinds))


def _row(prompt_P: NDArray[np.int32], tokens_T: NDArray[np.int32]) -> TrainRow:
    zeros_T, ones_T = np.zeros(len(tokens_T), np.float32), np.ones(len(tokens_T), np.bool_)
    return TrainRow(prompt_P, tokens_T, zeros_T, ones_T, advantage=0.0, temperature=1.0, lag=0)
