"""TRL's side of benchmarks/grpo_step.py. Runs in an environment of its own: `pip install trl peft`.

Not part of memr's environment; started by grpo_step.py with `--trl-python`. Prints one JSON line.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class StepClock(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.steps.append(time.perf_counter() - self._start)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--questions", "--work"):
        parser.add_argument(name, required=True)
    for name in ("--groups", "--rollouts", "--new-tokens", "--updates", "--micro-batch", "--threads"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


def _settings(args: argparse.Namespace) -> GRPOConfig:
    return GRPOConfig(
        output_dir=args.work,
        use_cpu=True,
        bf16=True,
        per_device_train_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.groups * args.rollouts // args.micro_batch,
        num_generations=args.rollouts,
        max_completion_length=args.new_tokens,
        max_steps=args.updates,
        temperature=1.0,
        beta=0.0,
        learning_rate=1e-4,
        generation_kwargs={"min_new_tokens": args.new_tokens},
        logging_steps=1,
        report_to=[],
        save_strategy="no",
    )


def _trainer(args: argparse.Namespace, clock: StepClock) -> GRPOTrainer:
    with open(args.questions) as file:
        questions = json.load(file)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token_id = 0
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16),
        args=_settings(args),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in questions]),
        processing_class=tokenizer,
        callbacks=[clock],
        reward_funcs=lambda completions, **kwargs: [float(len(str(c)) % 7) for c in completions],
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    clock = StepClock()
    generation: list[float] = []
    trainer = _trainer(args, clock)
    generate = trainer._generate_and_score_completions

    def timed(*a: object, **k: object) -> object:
        start = time.perf_counter()
        result = generate(*a, **k)
        generation.append(time.perf_counter() - start)
        return result

    trainer._generate_and_score_completions = timed
    trainer.train()
    lengths = [
        entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry
    ]
    result = {
        "version": version("trl"),
        "steps_s": clock.steps,
        "generation_s": generation,
        "mean_length": lengths,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
