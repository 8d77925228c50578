"""The packed forward gives the numbers of the plain one, gradients too."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from learner import packed_attention
from learner.credit import credit
from learner.packing import TrainRow, pack, rows_of
from learner.policy import LoraPolicy
from learner.shared_prefix import packed_hidden, padded_hidden
from learner.token_table import token_table
from tests.unit.learner import builders


def random_rows(seed: int = 0) -> list[list[TrainRow]]:
    given = builders.settings()
    return [rows_of(credit(item, given), 0) for item in builders.random_batch(seed)]


def logprobs_and_gradients(policy: LoraPolicy, budget: int, share: bool) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Log-probs by row, and the adapter's gradient of their advantage-weighted sum."""
    by_row: dict[int, Tensor] = {}
    totals = {name: torch.zeros_like(p) for name, p in policy.adapter_parameters.items()}
    groups = random_rows()
    order = {id(row): i for i, row in enumerate(row for rows in groups for row in rows)}
    for batch in pack(groups, budget, share):
        table, logprob_N, _ = policy.score(batch)
        (logprob_N * table.advantage_N).sum().backward()  # type: ignore[no-untyped-call]
        for i, row in enumerate(batch.rows):
            by_row[order[id(row)]] = logprob_N[table.row_N == i].detach()
        for name, parameter in policy.adapter_parameters.items():
            assert parameter.grad is not None
            totals[name] += parameter.grad
            parameter.grad = None
    return by_row, totals


@pytest.mark.parametrize("budget", [10_000, 40, 1])
def test_logprobs_and_gradients_equal_the_plain_forward(budget: int) -> None:
    """One micro-batch, several with split groups, one row each."""
    packed = logprobs_and_gradients(builders.tiny_policy(builders.settings(shared_prefix=True)), budget, True)
    plain = logprobs_and_gradients(builders.tiny_policy(builders.settings(shared_prefix=False)), 10_000, False)
    assert packed[0].keys() == plain[0].keys()
    for row, expected in plain[0].items():
        torch.testing.assert_close(packed[0][row], expected, atol=1e-5, rtol=1e-5)
    for name, gradient in plain[1].items():
        torch.testing.assert_close(packed[1][name], gradient, atol=1e-5, rtol=1e-5)
    assert all(gradient.abs().max() > 1e-4 for gradient in plain[1].values())


def test_hidden_states_equal_the_plain_forward() -> None:
    policy = builders.tiny_policy()
    (batch,) = pack(random_rows(1), 10_000, share_prompts=True)
    table = token_table(batch.rows, policy.device)
    backbone = policy._backbone
    packed_ND, padded_ND = packed_hidden(backbone, batch, table), padded_hidden(backbone, batch, table)
    torch.testing.assert_close(packed_ND, padded_ND, atol=1e-5, rtol=1e-5)


def test_fused_attention_of_long_rows_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = builders.tiny_policy()
    products = logprobs_and_gradients(policy, 10_000, True)
    monkeypatch.setattr(packed_attention, "FUSED_FROM_QUERIES", 1)
    fused = logprobs_and_gradients(policy, 10_000, True)
    for row, expected in products[0].items():
        torch.testing.assert_close(fused[0][row], expected, atol=1e-5, rtol=1e-5)
    for name, gradient in products[1].items():
        torch.testing.assert_close(fused[1][name], gradient, atol=1e-5, rtol=1e-5)


def test_a_row_does_not_see_its_neighbours() -> None:
    """Changing one rollout's tokens leaves the log-probs of the others bit for bit."""
    policy = builders.tiny_policy()
    groups = random_rows(2)
    before = policy.logprobs(pack(groups, 10_000, True)[0])
    changed = groups[0][0]
    other = TrainRow(
        changed.prompt_P,
        (changed.tokens_T + 7) % builders.VOCABULARY,
        changed.engine_logprobs_T,
        changed.policy_mask_T,
        0.0,
        1.0,
        0,
    )
    groups[0][0] = other
    (batch,) = pack(groups, 10_000, True)
    after = policy.logprobs(batch)
    mine = torch.tensor([batch.rows[i] is other for i in token_table(batch.rows, policy.device).row_N])
    assert torch.equal(before[~mine], after[~mine])
    assert not torch.equal(before[mine], after[mine])


def test_only_policy_tokens_are_in_the_table() -> None:
    prompt = np.array([5, 6], np.int32)
    mask = np.array([True, False, False, True])
    row = TrainRow(prompt, np.array([7, 8, 9, 10], np.int32), np.arange(4, dtype=np.float32), mask, 0.5, 0.7, 2)
    table = token_table([row, row], torch.device("cpu"))
    assert table.target_N.tolist() == [7, 10, 7, 10]
    assert table.row_N.tolist() == [0, 0, 1, 1]
    assert table.engine_logprob_N.tolist() == [0.0, 3.0, 0.0, 3.0]
    assert table.lag_N.tolist() == [2] * 4


def qwen3(sliding: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=builders.VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        use_sliding_window=sliding,
        sliding_window=4 if sliding else None,
        max_window_layers=0,
    )
    model: Qwen3ForCausalLM = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
    return model


def test_sliding_windows_train_on_plain_rows_and_say_why() -> None:
    """Every architecture: test_model_table.py."""
    shared = LoraPolicy.around(qwen3(sliding=False), "qwen3", builders.settings(), seed=0)
    windowed = LoraPolicy.around(qwen3(sliding=True), "qwen3", builders.settings(), seed=0)
    assert (shared.shares_prompts, shared.plain_rows) == (True, "")
    assert not windowed.shares_prompts
    assert "layers of type sliding_attention" in windowed.plain_rows
