"""docs/coming_from_trl.md names every option of TRL's GRPOConfig, and no setting of ours that is not there."""

import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from cluster.config.run_config import RunConfig

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from_trl.md").read_text()

GRPO_CONFIG_1_16_0 = re.findall(
    r"\w+",
    """
learning_rate model_init_kwargs trust_remote_code router_aux_loss_coef disable_dropout cast_lm_head_to_fp32
remove_unused_columns num_generations num_generations_eval max_completion_length ds3_gather_for_generation shuffle_dataset
pad_to_multiple_of generation_batch_size steps_per_generation temperature top_p top_k min_p generation_kwargs
chat_template_kwargs repetition_penalty cache_implementation use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode
vllm_structured_outputs_regex vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port
vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size beta num_iterations epsilon delta epsilon_high
sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg
importance_sampling_level reward_weights multi_objective_aggregation scale_rewards loss_type mask_truncated_completions
sync_ref_model ref_model_mixup_alpha ref_model_sync_steps top_entropy_quantile entropy_coef use_adaptive_entropy
entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target max_tool_calling_iterations
vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max
vllm_importance_sampling_clip_min off_policy_mask_threshold use_bias_correction_kl log_completions log_multimodal
num_completions_to_print log_unique_prompts log_completions_hub_repo use_transformers_continuous_batching
transformers_continuous_batching_config use_transformers_paged vllm_importance_sampling_cap
""",
)


def is_setting(dotted: str) -> bool:
    model: type[BaseModel] = RunConfig
    for part in dotted.split("."):
        if part not in model.model_fields:
            return False
        annotation = model.model_fields[part].annotation
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in inner if issubclass(kind, BaseModel)), BaseModel)
    return True


def test_every_option_has_its_row() -> None:
    assert len(GRPO_CONFIG_1_16_0) == 79
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert sorted(set(GRPO_CONFIG_1_16_0) - named) == []


def test_every_setting_of_ours_exists() -> None:
    sections = "|".join(RunConfig.model_fields)
    named = set(re.findall(rf"`(?:\[+)?((?:{sections})(?:\.\w+)+)", PAGE))
    assert len(named) > 40
    assert sorted(name for name in named if not is_setting(name)) == []
