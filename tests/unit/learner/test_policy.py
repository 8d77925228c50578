"""The LoRA policy: names, dtypes, reference, and the artifact that engines get."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load as tensors_from_bytes

from contracts.errors import DataError
from learner.credit import credit
from learner.learner import Learner
from learner.packing import pack, rows_of
from learner.policy import LoraPolicy
from tests.unit.learner import builders

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


def base_logprobs(model: torch.nn.Module) -> NDArray[np.float64]:
    ids = torch.from_numpy(TOKENS.astype(np.int64))[None]
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    return np.concatenate([[0.0], logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()])


def test_version_zero_is_the_base_model() -> None:
    policy = builders.tiny_policy(warm=False)
    np.testing.assert_allclose(policy.sequence_logprobs(TOKENS), base_logprobs(builders.tiny_llama()), atol=1e-5)
    assert all(not p.any() for name, p in policy.adapter_parameters.items() if "lora_B" in name)


def test_reference_is_the_base_model_whatever_the_adapter() -> None:
    policy = builders.tiny_policy(warm=True)
    assert np.abs(policy.sequence_logprobs(TOKENS) - base_logprobs(builders.tiny_llama())).max() > 1e-3
    with policy.reference():
        inside = policy.sequence_logprobs(TOKENS)
    np.testing.assert_allclose(inside, base_logprobs(builders.tiny_llama()), atol=1e-5)


def test_all_linear_layers_but_the_head_are_adapted() -> None:
    policy = builders.tiny_policy()
    assert policy.lora.target_modules == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert len(policy.adapter_parameters) == 2 * 7 * 2
    assert not any("lm_head" in name for name in policy.adapter_parameters)


def test_named_targets_alone_are_adapted() -> None:
    policy = builders.tiny_policy(builders.settings(lora_targets=("q_proj", "v_proj")))
    assert policy.lora.target_modules == ("q_proj", "v_proj")
    assert len(policy.adapter_parameters) == 2 * 2 * 2


def test_published_adapter_loads_in_plain_peft_and_gives_the_probes() -> None:
    """The other side reads the bytes by PEFT's own names and gets the manifest's log-probs."""
    learner = builders.tiny_learner(probe_tokens=[TOKENS])
    learner.step(builders.random_batch())
    adapter = learner.publish()
    manifest = adapter.manifest
    assert (manifest.policy_version, manifest.base_model, manifest.dtype) == (1, "tiny", "float32")
    assert (manifest.template_hash, manifest.num_bytes) == ("template", len(adapter.weights))
    assert manifest.weights_hash == hashlib.sha256(adapter.weights).hexdigest()
    shape = manifest.lora
    config = LoraConfig(r=shape.r, lora_alpha=int(shape.alpha), target_modules=list(shape.target_modules))
    model = get_peft_model(builders.tiny_llama(), config)
    tensors = tensors_from_bytes(bytes(adapter.weights))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    set_peft_model_state_dict(model, tensors)
    model.eval()
    (probe,) = manifest.probes
    assert probe.float32.adapted_P[0] == 0
    np.testing.assert_allclose(probe.float32.adapted_P, base_logprobs(model), atol=1e-5)


def test_same_policy_publishes_the_same_bytes() -> None:
    assert builders.tiny_policy().adapter_bytes() == builders.tiny_policy().adapter_bytes()
    assert builders.tiny_policy(warm=False).adapter_bytes() != builders.tiny_policy(seed=1, warm=False).adapter_bytes()


def test_adapter_bytes_round_trip_and_misfits_are_refused() -> None:
    source, target = builders.tiny_policy(warm=True), builders.tiny_policy(warm=False)
    target.load_adapter_bytes(source.adapter_bytes())
    assert target.adapter_bytes() == source.adapter_bytes()
    small = builders.tiny_policy(builders.settings(lora_r=2))
    with pytest.raises(ValueError, match="adapter does not fit tiny, first difference"):
        target.load_adapter_bytes(small.adapter_bytes())


def test_bfloat16_keeps_float32_masters() -> None:
    """Updates far below a bfloat16 step add up; the model holds the rounded weights."""
    given = builders.settings(dtype="bfloat16", learning_rate=1e-6)
    policy = LoraPolicy.around(builders.tiny_llama(dtype=torch.bfloat16), "tiny", given, 0)
    assert {p.dtype for p in policy.adapter_parameters.values()} == {torch.bfloat16}
    learner = Learner(policy, given, "template", (), 8)
    reports = [learner.step(builders.random_batch(version=version)) for version in range(3)]
    assert all(report.adapter_delta_norm > 0 for report in reports)
    for name, tensor in learner.masters.copies().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.to(torch.bfloat16), policy.adapter_parameters[name])


def test_model_that_scales_its_logits_is_refused() -> None:
    model = builders.tiny_llama()
    model.lm_head.register_forward_hook(lambda module, args, output: output * 3)
    with pytest.raises(DataError, match="post-processes logits"):
        LoraPolicy.around(model, "scaled", builders.settings(), 0)


def test_missing_model_says_which() -> None:
    with pytest.raises(DataError, match=r"cannot load the model \./no-such-folder"):
        LoraPolicy.load("./no-such-folder", builders.settings(), 0)


@pytest.mark.slow
def test_real_model_in_bfloat16_agrees_packed_and_plain(smollm2_dir: Path) -> None:
    """Shared prefix against whole sequences, in the dtype that runs: within bfloat16's noise."""
    groups = builders.random_batch(num_groups=2)
    rows = [rows_of(credit(item, builders.settings()), 0) for item in groups]
    (batch,) = pack(rows, 10_000, share_prompts=True)
    logprobs = []
    for share in (True, False):
        given = builders.settings(dtype="bfloat16", torch_threads=2, shared_prefix=share)
        policy = LoraPolicy.load(str(smollm2_dir), given, 0)
        logprobs.append(policy.logprobs(batch).numpy())
        assert Learner(policy, given, "template", (), 8).step(groups).adapter_delta_norm > 0
    assert np.abs(logprobs[0] - logprobs[1]).mean() < 0.1
