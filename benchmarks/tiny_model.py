"""A language model small enough for experiments with many seeds: 0.34M parameters, one token per character.

    python -m benchmarks.tiny_model --world sums --seed 0     builds it, prints the folder and how often it is right

A real transformers folder, used as `model.name = FOLDER`: a Llama of three layers in float32, trained from nothing on
right answers to training problems until a share of ACCURACY of sampled answers is right: it knows how an answer looks
and hardly ever what it is. Where reinforcement learning begins there, most groups are silent.
The same world, seed and machine give the same bytes; a folder that is there is used.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.scratchpad_task import KIND, columns, terms_of
from cluster.model_store import cache_path
from contracts.problem import Problem
from tasks.answers import compare, final_answer
from tasks.config import TaskSettings
from tasks.load import load_task

ALPHABET = "".join(chr(code) for code in range(32, 127)) + "\n"
TAGS = ("<think>", "</think>")
TEMPLATE = (
    "{% for message in messages %}{{ {'user': 'Q: ', 'assistant': 'A: ', 'system': ''}[message.role] + message.content }}"
    "{{ eos_token if message.role == 'assistant' else '' }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)

ACCURACY = (0.012, 0.03)
MEASURED_PROBLEMS = 1000
BATCH = 128
LEARNING_RATE = 2e-3
MEASURE_EVERY = 5
MAX_STEPS = 3000
EOS = 1
FORMAT = 1  # of the folder; a change of what is built raises it


@dataclass(frozen=True, slots=True)
class World:
    """A task that a tiny model can be started on. solution: a right answer as the model should write it."""

    task: Mapping[str, object]
    max_new_tokens: int
    solution: Callable[[Problem], str]

    @property
    def settings(self) -> TaskSettings:
        return TaskSettings.model_validate(dict(self.task))


WORLDS: Mapping[str, World] = {
    "sums": World(
        {"kind": "arithmetic", "max_operand": 99, "answer_form": "number", "system_prompt": ""},
        max_new_tokens=5,
        solution=lambda problem: problem.answer,
    ),
    "scratchpad": World(
        {"kind": KIND, "max_operand": 99, "answer_form": "number", "system_prompt": "", "held_out_share": 0.2},
        max_new_tokens=36,
        solution=lambda problem: f"<think>\n{columns(terms_of(problem.problem_id))}\n</think>\n{problem.answer}",
    ),
}


def tiny_model(world: str, seed: int, cache: Path | None = None) -> Path:
    """The folder, built on the first call. cache: where such folders are kept; None: memr's cache."""
    target = (cache or cache_path() / "tiny") / f"{world}-seed{seed}-v{FORMAT}"
    if (target / "config.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(WORLDS[world], seed, temporary)
        temporary.chmod(0o755)
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def build(world: World, seed: int, folder: Path, accuracy: tuple[float, float] = ACCURACY) -> float:
    """Write the folder; returns the sampled accuracy on training problems. accuracy: the first measurement at or
    above its lower end stops the start; above the upper end it is refused with RuntimeError."""
    tokenizer = char_tokenizer()
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama_config())  # type: ignore[no-untyped-call]
        reached, steps = _start(model, tokenizer, world, accuracy)
    model.save_pretrained(folder)
    (folder / "start.json").write_text(json.dumps({"accuracy": reached, "steps": steps, "seed": seed}) + "\n")
    return reached


def char_tokenizer() -> PreTrainedTokenizerFast:
    """Every character of ALPHABET is a token, and each tag of the reasoning span."""
    names = ["<pad>", "<eos>", "<unk>", *ALPHABET]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    inner.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
        model_max_length=256,
    )


def llama_config() -> LlamaConfig:
    """0.34M parameters with the tokenizer's vocabulary."""
    return LlamaConfig(
        vocab_size=len(ALPHABET) + 3 + len(TAGS),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        dtype="float32",
    )


def _start(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, accuracy: tuple[float, float]
) -> tuple[float, int]:
    task = load_task(world.settings)
    measured = [task.train_problem(i) for i in range(MEASURED_PROBLEMS)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for step in range(MAX_STEPS):
        if step % MEASURE_EVERY == 0:
            reached = sampled_accuracy(model, tokenizer, measured, world)
            if reached > accuracy[1]:
                raise RuntimeError(
                    f"sampled accuracy went past {accuracy[1]} to {reached} between two measurements (step {step}); lower "
                    "LEARNING_RATE or MEASURE_EVERY"
                )
            if reached >= accuracy[0]:
                return reached, step
        first = MEASURED_PROBLEMS + step * BATCH
        problems = [task.train_problem(i) for i in range(first, first + BATCH)]
        tokens_BT, wanted_BT = _batch(tokenizer, [(p, world.solution(p)) for p in problems])
        loss = model(input_ids=tokens_BT, labels=wanted_BT).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise RuntimeError(f"sampled accuracy stayed below {accuracy[0]} for {MAX_STEPS} steps")


def _batch(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[Problem, str]]) -> tuple[Tensor, Tensor]:
    """Tokens and labels [B, T], padded on the right; labels are -100 but on the solution and its end."""
    rows = []
    for problem, solution in pairs:
        prompt = prompt_tokens(tokenizer, problem)
        answer = [*tokenizer(solution, add_special_tokens=False)["input_ids"], EOS]
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    width = max(len(tokens) for tokens, _ in rows)
    tokens_BT = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in rows])
    wanted_BT = torch.tensor([wanted + [-100] * (width - len(wanted)) for _, wanted in rows])
    return tokens_BT, wanted_BT


def prompt_tokens(tokenizer: PreTrainedTokenizerFast, problem: Problem) -> list[int]:
    """As a worker encodes it."""
    chat = [dict(message) for message in problem.messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def sampled_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], world: World
) -> float:
    """One answer per problem at temperature 1, judged as the task judges."""
    prompts = [prompt_tokens(tokenizer, problem) for problem in problems]
    width = max(map(len, prompts))
    tokens_BT = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        written_BT = model.generate(  # type: ignore[operator]
            input_ids=tokens_BT,
            attention_mask=mask_BT,
            do_sample=True,
            top_k=0,
            max_new_tokens=world.max_new_tokens,
            pad_token_id=0,
        )[:, width:]
    form = world.settings.answer_form
    right = 0
    for row_T, problem in zip(written_BT, problems, strict=True):
        text = tokenizer.decode(row_T, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        final = final_answer(text, form, truncated=EOS not in row_T.tolist())
        right += final is not None and compare(final, problem.answer) is True
    return right / len(problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=sorted(WORLDS), default="sums")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder of such models; default: memr's cache")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = tiny_model(args.world, args.seed, args.cache)
    print(f"{folder}  {(folder / 'start.json').read_text().strip()}")


if __name__ == "__main__":
    main()
