"""A language model small enough for experiments with many seeds: 0.34M parameters, one token per character.

    python -m benchmarks.tiny_model --world sums --seed 0     builds it, prints the folder and how often it is right

A real transformers folder, used as `model.name = FOLDER`: a Llama of three layers in float32, made in two steps.

    competent: from nothing, on right answers to training problems, until half of its sampled answers are right (once a world)
    slipping:  then on answers whose every sum is off by a uniform draw, so that one in fifty is right (once a seed)

So it can do what it hardly ever does: where reinforcement learning begins, most groups are silent, and there is something
to be found. A model that is stopped early on its way up has chance level and nothing to find: 400 updates of plain GRPO
left it there. The same world, seed and machine give the same bytes; a folder that is there is used.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.scratchpad_task import KIND, Slip, terms_of, worked
from cluster.launch.model_store import cache_path
from contracts.problem import Problem
from tasks.answers import compare, final_answer
from tasks.config import TaskSettings
from tasks.load import load_task

ALPHABET = "".join(chr(code) for code in range(32, 127)) + "\n"
TAGS = ("<think>", "</think>")
TEMPLATE = (
    "{% for message in messages %}{{ message.content.removeprefix('What is ').replace(' ', '') }}"
    "{{ eos_token if message.role == 'assistant' else '' }}{{ '\n' }}{% endfor %}"
)
"""What the policy need not say is left out: "What is 47 + 38?" is 47+38? and a new line, seven tokens."""

COMPETENT = 0.5
"""Sampled accuracy on training problems at which the first step ends."""
SLIPPING = (0.01, 0.03)
"""What it must be at the end of the second: after SLIPPING_STEPS, or the first fifty more that bring it there."""
MEASURED_PROBLEMS = 1000
BATCH = 128
LEARNING_RATES = {"competent": 3e-3, "slipping": 1e-3}
MEASURE_EVERY = 100
MAX_STEPS = 6000
SLIPPING_STEPS = 150
EOS = 1
FORMAT = 1  # of the folder; a change of what is built raises it


@dataclass(frozen=True, slots=True)
class World:
    """A task that a tiny model can be started on. solution: an answer as the model should write it, each of its sums off
    by what `slip` draws."""

    task: Mapping[str, object]
    max_new_tokens: int
    slips: int
    solution: Callable[[Problem, Slip], str]

    @property
    def settings(self) -> TaskSettings:
        return TaskSettings.model_validate(dict(self.task))


def _sum(problem: Problem, slip: Slip) -> str:
    return str(abs(int(problem.answer) + slip()))


def _scratchpad(problem: Problem, slip: Slip) -> str:
    steps, answer = worked(terms_of(problem.problem_id), slip)
    return f"<think>\n{steps}\n</think>\n{answer}"


WORLDS: Mapping[str, World] = {
    "sums": World(
        {"kind": "arithmetic", "max_operand": 99, "answer_form": "number", "system_prompt": ""},
        max_new_tokens=5,
        slips=40,
        solution=_sum,
    ),
    "scratchpad": World(
        {"kind": KIND, "max_operand": 99, "answer_form": "number", "system_prompt": "", "held_out_share": 0.2},
        max_new_tokens=36,
        slips=4,
        solution=_scratchpad,
    ),
}


def tiny_model(world: str, seed: int, cache: Path | None = None) -> Path:
    """The folder, built on the first call. cache: where such folders are kept; None: memr's cache.

    Raises RuntimeError where training does not get to where the steps end."""
    cache = cache or cache_path() / "tiny"
    competent = _once(cache / f"{world}-competent-v{FORMAT}", lambda folder: build_competent(WORLDS[world], folder))
    target = cache / f"{world}-seed{seed}-v{FORMAT}"
    return _once(target, lambda folder: build_slipping(WORLDS[world], competent, seed, folder))


def _once(target: Path, make: Callable[[Path], None]) -> Path:
    """A second process that builds at the same time loses nothing but time."""
    if (target / "config.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        make(temporary)
        temporary.chmod(0o755)
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def build_competent(world: World, folder: Path, *, accuracy: float = COMPETENT, max_steps: int = MAX_STEPS) -> None:
    """Write the folder of a model that is right for at least this share of training problems."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(llama_config())  # type: ignore[no-untyped-call]
    for step in _train(model, world, lambda: 0, LEARNING_RATES["competent"], seed=0, num_steps=max_steps):
        if step % MEASURE_EVERY == 0 and (reached := sampled_accuracy(model, world)) >= accuracy:
            return _save(model, folder, {"accuracy": reached, "steps": step})
    raise RuntimeError(f"sampled accuracy stayed below {accuracy} for {max_steps} steps")


def build_slipping(world: World, competent: Path, seed: int, folder: Path) -> None:
    """The same for a model that knows how and hardly ever does. seed: of its slips and of the order of problems."""
    model = LlamaForCausalLM.from_pretrained(competent)
    draw = random.Random(seed)

    def slip() -> int:
        return draw.randint(-world.slips, world.slips)

    for step in _train(model, world, slip, LEARNING_RATES["slipping"], seed=seed, num_steps=MAX_STEPS):
        if step >= SLIPPING_STEPS and step % 50 == 0:
            reached = sampled_accuracy(model, world)
            if SLIPPING[0] <= reached <= SLIPPING[1]:
                return _save(model, folder, {"accuracy": reached, "steps": step, "seed": seed})
    raise RuntimeError(
        f"sampled accuracy never lay within {SLIPPING} in {MAX_STEPS} steps; change `slips` of the world"
    )


def _save(model: LlamaForCausalLM, folder: Path, facts: Mapping[str, float]) -> None:
    char_tokenizer().save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "start.json").write_text(json.dumps(dict(facts)) + "\n")


def char_tokenizer() -> PreTrainedTokenizerFast:
    """Every character of ALPHABET is a token, and each tag of the reasoning span."""
    names = ["<pad>", "<eos>", "<unk>", *ALPHABET]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    inner.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
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


def _train(
    model: LlamaForCausalLM, world: World, slip: Slip, learning_rate: float, *, seed: int, num_steps: int
) -> Iterator[int]:
    """Yields the number of steps made, before each."""
    tokenizer, task = char_tokenizer(), load_task(world.settings.model_copy(update={"seed": seed}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    for step in range(num_steps):
        yield step
        problems = [task.train_problem(i) for i in range(step * BATCH, (step + 1) * BATCH)]
        tokens_BT, wanted_BT = _batch(tokenizer, [(p, world.solution(p, slip)) for p in problems])
        loss = model(input_ids=tokens_BT, labels=wanted_BT).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


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
    chat = [{"role": str(m["role"]), "content": m["content"]} for m in problem.messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def sampled_accuracy(model: LlamaForCausalLM, world: World, num_problems: int = MEASURED_PROBLEMS) -> float:
    """One answer per problem at temperature 1, for the first training problems, judged as the task judges."""
    tokenizer, task = char_tokenizer(), load_task(world.settings)
    problems = [task.train_problem(i) for i in range(num_problems)]
    prompts = [prompt_tokens(tokenizer, problem) for problem in problems]
    width = max(map(len, prompts))
    tokens_BT = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        written_BT = model.generate(  # type: ignore[misc]
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
        text = str(tokenizer.decode(row_T, skip_special_tokens=True, clean_up_tokenization_spaces=False))
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
