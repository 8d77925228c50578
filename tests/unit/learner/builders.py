"""Small groups, rollouts and models with numbers that can be counted by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from contracts.problem import Purpose
from contracts.rollout import BonusStage, FinishReason, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Scored, Verdict
from learner.config import LearnerSettings
from learner.learner import Learner
from learner.packing import TrainRow, pack
from learner.policy import LoraPolicy

VOCABULARY = 61
MAX_NEW_TOKENS = 8


def settings(**changes: Any) -> LearnerSettings:
    """float32 on the CPU with a small adapter."""
    fields: dict[str, Any] = {
        "dtype": "float32",
        "device": "cpu",
        "torch_threads": 1,
        "lora_r": 4,
        "lora_alpha": 8.0,
        "learning_rate": 1e-2,
        "mismatch_stop": 100.0,
    }
    return LearnerSettings(**(fields | changes))


def tiny_llama(seed: int = 0, layers: int = 2, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    torch.nn.Module.to(model, dtype)
    return model


def tiny_policy(given: LearnerSettings | None = None, seed: int = 0, warm: bool = True) -> LoraPolicy:
    """warm: with a B that is not 0, as after some updates."""
    policy = LoraPolicy.around(tiny_llama(seed), "tiny", given or settings(), seed)
    if warm:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in policy.adapter_parameters.items():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return policy


def tiny_learner(warm: bool = True, probe_tokens: Sequence[NDArray[np.int32]] = (), **changes: Any) -> Learner:
    given = settings(**changes)
    return Learner(tiny_policy(given, warm=warm), given, "template", probe_tokens, MAX_NEW_TOKENS)


def policy_of(learner: Learner) -> LoraPolicy:
    """The policy of a learner that `tiny_learner` made."""
    assert isinstance(learner._policy, LoraPolicy)
    return learner._policy


def rollout(
    tokens: Sequence[int],
    reward: float = 0.0,
    mask: Sequence[bool] | None = None,
    logprobs: Sequence[float] | None = None,
    finish: FinishReason = FinishReason.STOP,
    verdict: Verdict | None = None,
    name: str = "0/0/0",
) -> Rollout:
    mask_T = np.array(mask if mask is not None else [True] * len(tokens), np.bool_)
    logprobs_T = np.array(logprobs if logprobs is not None else [-1.0] * len(tokens), np.float32)
    return Rollout(
        rollout_id=name,
        tokens_T=np.array(tokens, np.int32),
        logprobs_T=logprobs_T * mask_T,
        policy_mask_T=mask_T,
        turn_ends_U=np.array([len(tokens)], np.int32),
        outcomes=(TurnOutcome.DONE,),
        finish_reason=finish,
        text="",
        verdict=verdict or Scored(reward, reward > 0.5, {"correctness": reward}),
        seed=0,
    )


def group(
    rollouts: Sequence[Rollout], prompt: Sequence[int] = (1, 2, 3), version: int = 0, temperature: float = 1.0
) -> RolloutGroup:
    return RolloutGroup(
        lease_id=17,
        problem_id="p",
        question="q",
        prompt_P=np.array(prompt, np.int32),
        rollouts=tuple(rollouts),
        policy_version=version,
        purpose=Purpose.TRAIN,
        temperature=temperature,
        worker_id="w",
        attempt=0,
        started_s=0.0,
        finished_s=1.0,
    )


def scored(given: RolloutGroup, bonus: Sequence[float] | None = None, after: bool = False) -> ScoredGroup:
    if bonus is None:
        return ScoredGroup.without_bonus(given)
    zeros = np.zeros(len(bonus), np.float32)
    stage = BonusStage.AFTER_NORMALISATION if after else BonusStage.BEFORE_NORMALISATION
    return ScoredGroup(given, zeros, zeros, np.array(bonus, np.float32), stage, memory_version=3)


def random_batch(seed: int = 0, num_groups: int = 3, size: int = 4, version: int = 0) -> list[ScoredGroup]:
    """Groups of uneven lengths, several turns (masks with holes), random rewards; engine log-probs are made up."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(num_groups):
        rollouts = []
        for length in rng.integers(1, MAX_NEW_TOKENS + 1, size):
            mask = rng.random(length) < 0.7
            mask[rng.integers(length)] = True
            tokens, logprobs = rng.integers(0, VOCABULARY, length), rng.normal(-4, 0.2, length)
            rollouts.append(rollout(tokens.tolist(), float(rng.random()), mask.tolist(), logprobs.tolist()))
        prompt = rng.integers(0, VOCABULARY, rng.integers(1, 9))
        groups.append(scored(group(rollouts, prompt.tolist(), version)))
    return groups


def with_own_logprobs(policy: LoraPolicy, batch: Sequence[ScoredGroup], shift: float = 0.0) -> list[ScoredGroup]:
    """The batch as this very policy would have sampled it: engine log-probs are the learner's, minus `shift`."""
    result = []
    for item in batch:
        rollouts = []
        for one in item.group.rollouts:
            logprobs_T = np.zeros(len(one.tokens_T), np.float32)
            everything = np.ones(len(one.tokens_T), np.bool_)
            row = TrainRow(item.group.prompt_P, one.tokens_T, logprobs_T, everything, 0.0, item.group.temperature, 0)
            (micro_batch,) = pack([[row]], 1, share_prompts=True)
            logprobs = (policy.logprobs(micro_batch).numpy() - shift).tolist()
            mask = one.policy_mask_T.tolist()
            rollouts.append(rollout(one.tokens_T.tolist(), one.task_reward, mask, logprobs, one.finish_reason))
        fresh = group(rollouts, item.group.prompt_P.tolist(), item.group.policy_version, item.group.temperature)
        stage = item.bonus_stage
        result.append(ScoredGroup(fresh, item.exploit_G, item.explore_G, item.bonus_G, stage, item.memory_version))
    return result
