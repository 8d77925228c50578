"""Names of settings: which there are, where, and what a wrong one was meant to be."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

FIELDS_WORDS = {
    "lr": "learner.learning_rate",
    "max_steps": "learner.num_updates",
    "num_steps": "learner.num_updates",
    "steps": "learner.num_updates",
    "epochs": "learner.num_updates",
    "num_train_epochs": "learner.num_updates",
    "batch_size": "cluster.groups_per_batch",
    "train_batch_size": "cluster.groups_per_batch",
    "per_device_train_batch_size": "cluster.groups_per_batch",
    "num_generations": "actors.rollouts_per_group",
    "group_size": "actors.rollouts_per_group",
    "max_completion_length": "actors.max_new_tokens",
    "max_tokens": "actors.max_new_tokens",
    "max_prompt_length": "task.max_prompt_tokens",
    "beta": "learner.kl_weight",
    "kl_coef": "learner.kl_weight",
    "epsilon": "learner.clip_low",
    "epsilon_high": "learner.clip_high",
    "entropy_coef": "learner.entropy_weight",
    "warmup_ratio": "learner.warmup_share",
    "lr_scheduler_type": "learner.schedule",
    "target_modules": "learner.lora_targets",
    "model_name_or_path": "model.name",
    "model_name": "model.name",
    "dataset": "task.path",
    "reward_funcs": "task.rewards",
    "tensor_parallel_size": "actors.vllm.tensor_parallel_size",
    "output_dir": "run.directory",
}
"""What other trainers call it (docs/coming_from_trl.md); the nearest spelling would be another setting."""


def known_keys(root: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Of a section; numbers in `location` are places in an array. Empty where there is no such section."""
    model = _section(root, location)
    return list(model.model_fields) if model is not None else []


def field_at(root: type[BaseModel], location: Sequence[str]) -> FieldInfo | None:
    """None where there is no such setting; what stands in a table of free keys is none."""
    model = _section(root, location[:-1])
    return model.model_fields.get(location[-1]) if model is not None and location else None


def leaf_settings(root: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted name and field of every setting that holds a value, sections and the entries of arrays left out."""
    for name, found in root.model_fields.items():
        section = found.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in leaf_settings(section))
        else:
            yield name, found


def hint(root: type[BaseModel], location: Sequence[str], *, whole: bool = False) -> str:
    """What an unknown key was meant to be: the setting that other trainers call so, the same name in another section, the
    nearest one here, or all that are known here. whole: names with their section."""
    *section, last = location
    known = known_keys(root, section)
    theirs = FIELDS_WORDS.get(last)
    if theirs is not None:
        ours = theirs.rpartition(".")[2]
        return f"did you mean '{ours}'?" if ours in known else f"did you mean '{theirs}'?"
    elsewhere = [name for name, _ in leaf_settings(root) if name.rpartition(".")[2] == last]
    if elsewhere:
        return f"did you mean {' or '.join(repr(name) for name in elsewhere[:3])}?"
    close = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    if not close:
        last_parts = {name.rpartition(".")[2]: name for name, _ in leaf_settings(root)}
        if far := difflib.get_close_matches(last, last_parts, n=1, cutoff=0.8):
            return f"did you mean '{last_parts[far[0]]}'?"
        return f"known here: {', '.join(sorted(known))}" if known else "give section.key as --set takes it"
    return f"did you mean '{'.'.join([*section, close[0]]) if whole else close[0]}'?"


def _section(root: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    model: type[BaseModel] = root
    for part in location:
        if part.isdigit():
            continue
        inner = _model_in(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation) if annotation is not Literal)
    return next((model for model in found if model is not None), None)
