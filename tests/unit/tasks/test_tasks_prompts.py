"""Prompts, tokenizers and their lengths, on a tokenizer of single bytes made here and on the real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import DataError, LoadError
from contracts.problem import ChatMessage, Problem
from tasks.arithmetic import arithmetic_task
from tasks.config import TaskSettings
from tasks.prompts import (
    HfTokenizer,
    WorkedExample,
    build_messages,
    check_prompt_lengths,
    choose_pad,
    load_tokenizer,
    template_hash,
)

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EOS, PAD = 2, 0


def byte_tokenizer(template: str | None = TEMPLATE, pad_token: str = "<|im_end|>") -> Any:
    """One token per byte, and three special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*specials, *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(specials)
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=inner, eos_token="<|im_end|>", pad_token=pad_token, unk_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> HfTokenizer:
    return HfTokenizer(byte_tokenizer(), frozenset({EOS}), "the test")


def saved(folder: Path, generation_config: str | None = None, **values: Any) -> str:
    byte_tokenizer(**values).save_pretrained(folder)
    if generation_config is not None:
        (folder / "generation_config.json").write_text(generation_config)
    return str(folder)


def test_a_chat_is_system_prompt_worked_examples_and_question_in_order() -> None:
    messages = build_messages("Q?", TaskSettings(), [WorkedExample("A?", "1", "because")])
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "Answer with the number only."),
        ("user", "A?"),
        ("assistant", "1"),
        ("user", "Q?"),
    ]


def test_the_system_prompt_can_be_changed_and_left_out() -> None:
    assert build_messages("Q?", TaskSettings(system_prompt="Be brief."), [])[0]["content"] == "Be brief."
    assert build_messages("Q?", TaskSettings(system_prompt=""), []) == ({"role": "user", "content": "Q?"},)


def test_a_prompt_is_the_template_with_the_generation_prompt(tokenizer: HfTokenizer) -> None:
    tokens_P = tokenizer.encode_chat([{"role": "user", "content": "hi"}])
    assert tokens_P.dtype == np.int32
    assert tokens_P[0] == 1
    assert tokenizer.decode(tokens_P) == "<|im_start|>user\nhi\n<|im_start|>assistant\n"


def test_prompt_policy_turn_and_reply_join_to_what_the_template_writes(tokenizer: HfTokenizer) -> None:
    chat: list[ChatMessage] = [{"role": "user", "content": "hi"}]
    sampled = [*tokenizer.encode_chat(chat), *byte_tokenizer()("18")["input_ids"], EOS]
    joined = [*sampled, *tokenizer.encode_reply("Try again.")]
    rewritten: list[ChatMessage] = [
        *chat,
        {"role": "assistant", "content": "18"},
        {"role": "user", "content": "Try again."},
    ]
    assert joined == tokenizer.encode_chat(rewritten).tolist()


def test_decoding_leaves_end_tokens_out_and_keeps_spaces(tokenizer: HfTokenizer) -> None:
    tokens = np.asarray([*byte_tokenizer()(" 19 , é .")["input_ids"], EOS], np.int32)
    assert tokenizer.decode(tokens) == " 19 , é ."


def test_padding_never_ends_a_text_where_another_token_can_pad(tokenizer: HfTokenizer) -> None:
    assert tokenizer.pad_token_id == PAD
    assert choose_pad(byte_tokenizer(pad_token="<|im_start|>"), frozenset({EOS})) == 1
    assert choose_pad(byte_tokenizer(), frozenset({0, 1, 2})) == 0


def test_end_tokens_come_from_tokenizer_and_generation_config(tmp_path: Path) -> None:
    assert load_tokenizer(saved(tmp_path / "plain")).eos_token_ids == {EOS}
    one = saved(tmp_path / "one", '{"eos_token_id": 1}')
    several = saved(tmp_path / "several", '{"eos_token_id": [2, 0]}')
    assert load_tokenizer(one).eos_token_ids == {1, EOS}
    assert load_tokenizer(several).eos_token_ids == {0, EOS}


def test_a_saved_tokenizer_loads_with_the_same_hash(tmp_path: Path, tokenizer: HfTokenizer) -> None:
    assert load_tokenizer(saved(tmp_path / "model")).fingerprint == tokenizer.fingerprint


def test_the_hash_changes_with_the_template_and_with_the_vocabulary() -> None:
    changed = byte_tokenizer()
    changed.add_tokens(["<new>"])
    hashes = {template_hash(byte_tokenizer()), template_hash(byte_tokenizer(TEMPLATE + " ")), template_hash(changed)}
    assert len(hashes) == 3
    assert template_hash(byte_tokenizer()) == template_hash(byte_tokenizer())


def test_a_tokenizer_without_a_template_or_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no chat template.*chat_template\.jinja"):
        load_tokenizer(saved(tmp_path / "bare", template=None))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match=r"no tokenizer in .*empty"):
        load_tokenizer(str(tmp_path / "empty"))


def test_a_tokenizer_or_a_config_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path / "model"))
    whole = (folder / "tokenizer.json").read_text()
    for broken in (whole[:-100], whole.replace('"BPE"', '"BPEX"'), "{}", ""):
        (folder / "tokenizer.json").write_text(broken)
        with pytest.raises(LoadError, match=r"cannot load a tokenizer from .*model: \w+"):
            load_tokenizer(str(folder))
    (folder / "tokenizer.json").write_text(whole)
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text("{ half")
        with pytest.raises(LoadError, match=f"cannot read .*{name}|cannot load a tokenizer"):
            load_tokenizer(str(folder))
        (folder / name).unlink()
    assert load_tokenizer(str(folder)).eos_token_ids == {EOS}


def test_a_pad_token_outside_of_the_embedding_is_not_used(tmp_path: Path) -> None:
    made = byte_tokenizer()
    made.add_special_tokens({"pad_token": "[PAD]"})
    made.save_pretrained(tmp_path)
    rows = len(made) - 1
    (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "vocab_size": {rows}}}')
    found = load_tokenizer(str(tmp_path))
    assert made.pad_token_id == rows
    assert found.pad_token_id == PAD
    assert any("'[PAD]' is outside" in note for note in found.notes)
    (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "vocab_size": {rows + 1}}}')
    assert (load_tokenizer(str(tmp_path)).pad_token_id, load_tokenizer(str(tmp_path)).notes) == (rows, ())


def test_a_prompt_with_a_token_that_has_no_embedding_is_refused_before_the_model_sees_it() -> None:
    small = HfTokenizer(byte_tokenizer(), frozenset({EOS}), "the test", vocab_size=100)
    with pytest.raises(LoadError, match=r"token \d+ \('.'\).*embedding has 100 rows"):
        small.encode_chat([{"role": "user", "content": "ü"}])


def test_end_tokens_outside_of_the_embedding_end_nothing(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path / "model", '{"eos_token_id": [2, 999]}'))
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 259}')
    assert load_tokenizer(str(folder)).eos_token_ids == {EOS}


def test_lengths_are_counted_and_a_prompt_that_is_too_long_is_named(tokenizer: HfTokenizer) -> None:
    problems = [
        Problem(name, "q", "1", ({"role": "user", "content": "x" * n},)) for name, n in (("short", 1), ("long", 9))
    ]
    frame = len(tokenizer.encode_chat([{"role": "user", "content": ""}]))
    lengths = check_prompt_lengths(problems, tokenizer, frame + 9)
    assert (lengths.min, lengths.mean, lengths.max) == (frame + 1, frame + 5, frame + 9)
    with pytest.raises(
        DataError, match=rf"problem long: .* {frame + 9} tokens, the limit is {frame + 8} \(1 of 2.*Raise"
    ):
        check_prompt_lengths(problems, tokenizer, frame + 8)
    with pytest.raises(DataError, match="no problems"):
        check_prompt_lengths([], tokenizer, 10)


@pytest.mark.slow
def test_smollm2_pads_with_endoftext_ends_with_im_end_and_has_short_arithmetic_prompts(smollm2_dir: Path) -> None:
    real = load_tokenizer(str(smollm2_dir))
    assert (real.pad_token_id, real.eos_token_ids) == (0, frozenset({2}))
    task = arithmetic_task(TaskSettings())
    lengths = check_prompt_lengths([task.train_problem(i) for i in range(100)], real, 256)
    assert lengths.max < 40
    chat: list[ChatMessage] = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    rewritten: list[ChatMessage] = [*chat, {"role": "assistant", "content": "18"}, {"role": "user", "content": "No."}]
    sampled = [*real.encode_chat(chat), *real.encode_chat(rewritten)[len(real.encode_chat(chat)) :][:3].tolist()]
    assert [*sampled, *real.encode_reply("No.")] == real.encode_chat(rewritten).tolist()
