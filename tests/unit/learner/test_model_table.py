"""Every architecture is read right or refused with a sentence: one row of the table each, in both data types.

The oracle is PEFT's own model with eager attention, one rollout at a time, without padding.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from contracts.errors import DataError
from learner.learner import Learner
from learner.packing import TrainRow, pack
from learner.policy import LoraPolicy
from tests.toy_models import TOYS, VOCABULARY, toy
from tests.unit.learner import builders

SHARED = {
    "llama",
    "olmo2",
    "phi3",
    "phi3, longrope",
    "qwen3_moe",
    "qwen2_moe",
    "mixtral",
    "deepseek_v3",
    "gpt_neox",
    "opt",
}
REFUSED = {
    "gemma2": r"changes what its output head gives: \S+ becomes 29\.\d+\. .*post-processes logits \(soft caps",
    "recurrent_gemma": r"changes what its output head gives: \S+ becomes 29\.",
    "xlstm": r"changes what its output head gives: \S+ becomes 29\.",
    "cohere2": r"changes what its output head gives: .*post-processes logits",
    "gpt2": "Conv1D, as GPT-2's are",
    "mamba2": "no adapter fits learner.lora_targets",
    "falcon_h1": r"no adapter fits learner.lora_targets = all_linear: .*'out_proj'.*name others",
    "gemma3n": r"changes what its output head gives: \S+ becomes 29\.",
    "granite": r"changes what its output head gives: 100 becomes 12\.5\. ",
    "gptj": "output head has a bias.*another base model",
    "bert": "output head has a bias",
    "modernbert-decoder": "output head has a bias",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def policy_of(name: str, dtype: str, **changes: object) -> LoraPolicy:
    return LoraPolicy.around(toy(name, DTYPES[dtype]), name, builders.settings(dtype=dtype, **changes), seed=0)


def rows() -> list[list[TrainRow]]:
    """Three prompts of 1 to 12 tokens, rollouts of 1 to 14: other lengths than the check at the start has."""
    random = np.random.default_rng(11)
    groups = []
    for prompt_length, lengths in ((12, (14, 1, 6)), (1, (3,)), (4, (9, 2))):
        prompt_P = random.integers(0, VOCABULARY, prompt_length).astype(np.int32)
        made = []
        for length in lengths:
            tokens_T = random.integers(0, VOCABULARY, length).astype(np.int32)
            zeros_T, ones_T = np.zeros(length, np.float32), np.ones(length, np.bool_)
            made.append(TrainRow(prompt_P, tokens_T, zeros_T, ones_T, float(random.normal()), 1.0, 0))
        groups.append(made)
    return groups


def ours(policy: LoraPolicy, groups: Sequence[Sequence[TrainRow]]) -> tuple[list[Tensor], dict[str, Tensor]]:
    found: dict[int, Tensor] = {}
    for batch in pack(groups, 60, policy.shares_prompts):
        table, logprob_N, _ = policy.score(batch)
        (logprob_N * table.advantage_N).sum().backward()  # type: ignore[no-untyped-call]
        found |= {id(row): logprob_N[table.row_N == i].detach() for i, row in enumerate(batch.rows)}
    gradients = {name: p.grad for name, p in policy.adapter_parameters.items() if p.grad is not None}
    return [found[id(row)] for group in groups for row in group], gradients


def plain(name: str, groups: Sequence[Sequence[TrainRow]]) -> tuple[list[Tensor], dict[str, Tensor]]:
    base = toy(name)
    base.set_attn_implementation("eager")
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train(False)
    logprobs = []
    for row in (row for group in groups for row in group):
        ids_1P = torch.from_numpy(np.concatenate([row.prompt_P, row.tokens_T]).astype(np.int64))[None]
        logits_TV = model(input_ids=ids_1P, use_cache=False).logits[0, len(row.prompt_P) - 1 : -1]
        logprob_T = torch.log_softmax(logits_TV, -1).gather(1, ids_1P[0, len(row.prompt_P) :, None])[:, 0]
        (logprob_T * row.advantage).sum().backward()  # type: ignore[no-untyped-call]
        logprobs.append(logprob_T.detach())
    named = ((name.replace(".default.", "."), p.grad) for name, p in model.named_parameters())
    return logprobs, {name: gradient for name, gradient in named if gradient is not None}


@pytest.mark.filterwarnings("ignore:target_parameters=", "ignore:The following")  # the oracle's PEFT
@pytest.mark.parametrize("name", sorted(TOYS.keys() - REFUSED))
def test_logprobs_and_gradients_are_those_of_plain_forwards(name: str) -> None:
    policy = policy_of(name, "float32")
    assert policy.shares_prompts == (name in SHARED)
    assert bool(policy.plain_rows) == (name not in SHARED)
    expected, gradients = plain(name, rows())
    found, own = ours(policy, rows())
    for logprob_T, right_T in zip(found, expected, strict=True):
        torch.testing.assert_close(logprob_T, right_T, atol=1e-4, rtol=0)
    assert own.keys() == gradients.keys()
    size = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    apart = torch.stack([(own[key] - gradients[key]).norm() for key in own]).norm()
    assert apart < 1e-3 * size


@pytest.mark.parametrize("name", sorted(TOYS.keys() - REFUSED))
def test_the_default_data_type_is_read_the_same_way(name: str) -> None:
    """Rounding may neither let a wrong layout pass nor refuse a right one."""
    policy = policy_of(name, "bfloat16")
    assert policy.shares_prompts == (name in SHARED)
    with policy.computed_in("float32"):
        found = [
            logprob_N for batch in pack(rows(), 60, policy.shares_prompts) for logprob_N in [policy.logprobs(batch)]
        ]
    assert all(bool(torch.isfinite(logprob_N).all()) for logprob_N in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_sentence(name: str, dtype: str) -> None:
    with pytest.raises(DataError, match=REFUSED[name]):
        policy_of(name, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["recurrent_gemma", "xlstm"])
def test_a_soft_cap_is_found_although_small_logits_hardly_feel_it(name: str, dtype: str) -> None:
    """A cap of 30 moves log-probs of a small head by less than the check's limit, and those of a trained one by nats."""
    small = toy(name, DTYPES[dtype])
    with torch.no_grad():
        small.get_output_embeddings().weight.mul_(0.1)  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=r"becomes 29\."):
        LoraPolicy.around(small, name, builders.settings(dtype=dtype), seed=0)


def test_layers_that_take_no_adapter_can_be_left_out() -> None:
    """The advice of the refusal of falcon_h1 above."""
    policy = policy_of("falcon_h1", "float32", lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    assert "layers of type" in policy.plain_rows or "log-probs differ" in policy.plain_rows


@pytest.mark.parametrize("name", ["lfm2", "gemma3, window 3", "mistral, window 3", "stablelm"])
def test_plain_rows_are_said_in_one_line(name: str) -> None:
    given = builders.settings()
    learner = Learner(policy_of(name, "float32"), given, "template", (), 8)
    (said,) = learner.notes
    assert "\n" not in said
    assert said.startswith("every rollout runs with its prompt, as with learner.shared_prefix = false: ")
    assert "(model type " in said
    assert policy_of(name, "float32", shared_prefix=False).plain_rows == ""
    assert builders.tiny_learner().notes == ()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lfm2", "granitemoehybrid", "qwen3_next", "qwen3_5_text", "bamba"])
def test_numbers_alone_tell_a_row_that_reads_its_neighbour(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the configuration's word for its layers."""
    monkeypatch.setattr("learner.self_check._other_layers", lambda config: "")
    policy = policy_of(name, dtype)
    assert not policy.shares_prompts
    assert "log-probs differ" in policy.plain_rows


def test_a_gradient_that_is_cut_is_found_although_the_logprobs_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from learner import packed_attention

    whole = packed_attention._both_parts

    def cut(query: Tensor, key: Tensor, value: Tensor, layout: object) -> Tensor:
        return whole(query, key.detach(), value.detach(), layout)  # type: ignore[arg-type]

    monkeypatch.setattr("learner.packed_attention._both_parts", cut)
    for dtype in DTYPES:
        policy = policy_of("llama", dtype)
        assert not policy.shares_prompts
        assert "gradient by" in policy.plain_rows
