"""Chat templates as models ship them, cut down to what matters: a system role refused, a tag opened, a date, an end of turn."""

from datetime import datetime
from typing import Any

import numpy as np
import pytest

from contracts.errors import LoadError
from contracts.problem import ChatMessage
from tasks.answers import final_answer
from tasks.chat_template import ChatTemplate
from tasks.prompts import HfTokenizer, template_hash
from tests.unit.tasks.test_tasks_prompts import EOS, TEMPLATE, byte_tokenizer

LOOP = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}" + TEMPLATE
)
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}[{{ m['content'] }}]{% endfor %}"
OPENS_THINK = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
THINK_IN_EVERY_TURN = (
    "{% for m in messages %}{{ m['role'] }}:\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant:\n<think>\n{% endif %}"
)
ROLE_TAGS = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CLOSED_THINK = LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}Today Date: {{ date_string }}\n" + TEMPLATE
)
DATED_WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}Today: {{ strftime_now('%B %d, %Y') }}\n{% endif %}" + TEMPLATE
)

SYSTEM_AND_QUESTION: list[ChatMessage] = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "7 + 12?"},
]


def tokenizer_with(template: str, ends: frozenset[int] = frozenset({EOS}), **values: Any) -> HfTokenizer:
    return HfTokenizer(byte_tokenizer(template, **values), ends, "the test")


def shown(tokenizer: HfTokenizer, chat: list[ChatMessage]) -> str:
    return str(tokenizer._tokenizer.decode(tokenizer.encode_chat(chat).tolist()))


@pytest.mark.parametrize("template", [REFUSES_SYSTEM, ALTERNATES, DROPS_SYSTEM])
def test_an_instruction_reaches_the_policy_although_the_template_has_no_place_for_it(template: str) -> None:
    tokenizer = tokenizer_with(template)
    text = shown(tokenizer, SYSTEM_AND_QUESTION)
    assert "Answer briefly.\n\n7 + 12?" in text
    assert text == shown(tokenizer, [{"role": "user", "content": "Answer briefly.\n\n7 + 12?"}])
    assert any("system message" in note for note in tokenizer.notes)


def test_worked_examples_follow_a_folded_instruction() -> None:
    chat: list[ChatMessage] = [
        SYSTEM_AND_QUESTION[0],
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        SYSTEM_AND_QUESTION[1],
    ]
    text = shown(tokenizer_with(ALTERNATES), chat)
    assert text.count("Answer briefly.") == 1
    assert "Answer briefly.\n\n1 + 1?" in text


def test_a_system_message_that_the_template_takes_stays_where_it_is() -> None:
    assert shown(tokenizer_with(TEMPLATE), SYSTEM_AND_QUESTION).startswith(
        "<|im_start|>system\nAnswer briefly.<|im_end|>"
    )
    assert tokenizer_with(TEMPLATE).notes == ()


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        (OPENS_THINK, "<think>\n"),
        (THINK_IN_EVERY_TURN, "<think>\n"),
        (OPENS_THINK.replace("<think>", "<plan>"), "<plan>\n"),
        (TEMPLATE, ""),
        (ROLE_TAGS, ""),
        (CLOSED_THINK, ""),
        (LOOP, ""),
    ],
)
def test_a_tag_that_the_generation_prompt_opens_is_part_of_the_answer(template: str, opening: str) -> None:
    tokenizer = tokenizer_with(template)
    assert tokenizer.opening == opening
    assert any("opens" in note for note in tokenizer.notes) == bool(opening)


def test_the_best_answer_after_an_opened_tag_has_the_form() -> None:
    tokenizer = tokenizer_with(OPENS_THINK)
    written = tokenizer._encode("7 + 12 is 19\n</think>\n<answer>\n19\n</answer><|im_end|>")
    text = tokenizer.opening + tokenizer.decode(written)
    assert text == "<think>\n7 + 12 is 19\n</think>\n<answer>\n19\n</answer>"
    assert final_answer(text, "think_answer") == "19"


def test_tags_that_are_special_tokens_are_not_lost() -> None:
    made = byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<answer>", "</answer>"]})
    tokenizer = HfTokenizer(made, frozenset({EOS}), "the test")
    good = "<think>\n7 + 12 is 19\n</think>\n<answer>\n19\n</answer>"
    tokens = tokenizer._encode(f"{good}<|im_end|>")
    assert int(tokens[0]) in made.all_special_ids
    assert tokenizer.decode(tokens) == good


def test_a_tag_that_pads_for_want_of_another_token_is_not_lost() -> None:
    made = byte_tokenizer(pad_token="<|im_end|>")
    ends = frozenset({0, 1, 2})
    made.add_special_tokens({"additional_special_tokens": ["<answer>"]})
    tokenizer = HfTokenizer(made, ends, "the test")
    assert made.convert_ids_to_tokens(tokenizer.pad_token_id) == "<answer>"
    assert tokenizer.decode(tokenizer._encode("<answer>19")) == "<answer>19"


class Clock(datetime):
    """The day after tomorrow."""

    @classmethod
    def now(cls, tz: Any = None) -> "Clock":
        return cls(2031, 5, 6)


@pytest.mark.parametrize("template", [DATED, DATED_WITHOUT_SYSTEM])
def test_prompts_do_not_change_with_the_day(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = SYSTEM_AND_QUESTION[1:]
    tokenizer = tokenizer_with(template)
    today = shown(tokenizer, chat)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    raw = byte_tokenizer(template).apply_chat_template([dict(m) for m in chat], tokenize=False)
    assert "2031" in raw, "the template reads the clock"
    assert shown(tokenizer_with(template), chat) == today
    assert "2024" in today
    assert any("date" in note for note in tokenizer.notes)


def test_the_fingerprint_covers_what_is_made_of_a_template_and_no_other_template_changes() -> None:
    for plain in (TEMPLATE, REFUSES_SYSTEM, ROLE_TAGS):
        assert tokenizer_with(plain).fingerprint == template_hash(byte_tokenizer(plain))
    for handled in (DROPS_SYSTEM, OPENS_THINK, DATED):
        tokenizer = tokenizer_with(handled)
        assert tokenizer.fingerprint != tokenizer.plain_fingerprint == template_hash(byte_tokenizer(handled))
    assert tokenizer_with(TEMPLATE, frozenset({0})).fingerprint != tokenizer_with(TEMPLATE).fingerprint


def test_the_token_that_ends_a_turn_ends_an_answer() -> None:
    tokenizer = tokenizer_with(TEMPLATE, frozenset({0}))  # a base model: <|endoftext|> alone
    assert tokenizer.eos_token_ids == {0, EOS}
    assert [note for note in tokenizer.notes if "<|im_end|>" in note]
    assert tokenizer.decode(np.asarray([*tokenizer._encode("19"), EOS], np.int32)) == "19"
    assert int(tokenizer.encode_reply("no")[0]) != EOS, "the policy has sampled it"


def test_the_end_of_a_turn_is_found_before_the_end_of_the_chat() -> None:
    """Phi-3's template: <|end|> after every turn, and the model's end token where no generation prompt follows."""
    template = TEMPLATE.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}").replace(
        "<|im_end|>", "<|im_start|>"
    )
    assert tokenizer_with(template).eos_token_ids == {1, EOS}


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (TEMPLATE.replace("<|im_end|>", "\n### End"), r"the text '### End'"),
        (TEMPLATE.replace("<|im_end|>\n", ""), ""),
        (TEMPLATE.replace("<|im_end|>", " <|im_end|>"), ""),
        (TEMPLATE.replace("<|im_end|>", "\n### End<|im_end|>"), ""),
    ],
)
def test_a_turn_that_no_token_ends_is_said_and_nothing_is_invented(template: str, says: str) -> None:
    tokenizer = tokenizer_with(template)
    assert tokenizer.eos_token_ids == {EOS}
    assert says in " ".join(tokenizer.notes)
    assert bool(tokenizer.notes) == bool(says)


def test_a_model_whose_answers_nothing_ends_is_said() -> None:
    tokenizer = tokenizer_with(TEMPLATE.replace("<|im_end|>\n", ""), frozenset())
    assert any("no" in note and "end token" in note for note in tokenizer.notes)


WANTS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TEMPLATE
WANTS_TOOLS = "{% if tools | length > 0 %}Tools: {{ tools }}\n{% endif %}" + TEMPLATE
WANTS_PARTS = TEMPLATE.replace("{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}")
LAST_TURN_ALONE = "{% set messages = messages[-1:] %}" + TEMPLATE
HIDES_ANSWERS = "{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}<|im_end|>\n{% endfor %}" + PROMPT


@pytest.mark.parametrize("template", [WANTS_SYSTEM, WANTS_TOOLS, WANTS_PARTS])
def test_what_a_template_asks_for_beyond_roles_and_texts_is_given(template: str) -> None:
    """Texts in parts went missing without a word, and a list of tools was an error of jinja's."""
    tokenizer, plain = tokenizer_with(template), tokenizer_with(TEMPLATE)
    assert shown(tokenizer, SYSTEM_AND_QUESTION) == shown(plain, SYSTEM_AND_QUESTION)
    assert tokenizer.encode_reply("Try again.").tolist() == plain.encode_reply("Try again.").tolist()
    assert tokenizer.eos_token_ids == plain.eos_token_ids
    assert tokenizer.fingerprint != tokenizer.plain_fingerprint


def test_a_chat_without_the_system_message_that_a_template_wants_names_the_setting() -> None:
    with pytest.raises(LoadError, match=r"system first.*task\.system_prompt"):
        tokenizer_with(WANTS_SYSTEM).encode_chat(SYSTEM_AND_QUESTION[1:])


@pytest.mark.parametrize(
    "template", ["hello", "<|im_start|>assistant\n", TEMPLATE.replace("['content']", "['content']|upper")]
)
def test_a_template_that_does_not_show_the_question_is_refused(template: str) -> None:
    with pytest.raises(LoadError, match=r"leaves the user's message out, or alters it.*Mend chat_template\.jinja"):
        tokenizer_with(template)


ANSWERS_LAST = (
    "{% for m in messages if m.role != 'assistant' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% for m in messages if m.role == 'assistant' %}assistant: {{ m.content }}\n{% endfor %}assistant: "
)


@pytest.mark.parametrize("template", [LAST_TURN_ALONE, HIDES_ANSWERS, ANSWERS_LAST])
def test_turns_that_a_template_does_not_show_are_not_lost_in_silence(template: str) -> None:
    tokenizer = tokenizer_with(template)
    assert any("leaves earlier turns out" in note for note in tokenizer.notes)
    assert "7 + 12?" in shown(tokenizer, SYSTEM_AND_QUESTION), "one turn is shown"
    with pytest.raises(LoadError, match=r"Set task\.worked_examples = 0"):
        tokenizer.encode_chat([*SYSTEM_AND_QUESTION, {"role": "assistant", "content": "19"}, SYSTEM_AND_QUESTION[1]])
    with pytest.raises(LoadError, match="earlier turns"):
        tokenizer.encode_reply("Try again.")


def test_a_template_without_a_generation_prompt_is_said() -> None:
    [note] = tokenizer_with(LOOP).notes
    assert "no generation prompt: answers begin with '<|im_start|>assistant'" in note
    assert tokenizer_with("{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}").notes[:1] != (note,)
    assert not tokenizer_with(TEMPLATE).notes


def test_an_end_of_turn_on_a_line_of_its_own_stands_once_before_a_reply() -> None:
    tokenizer = tokenizer_with(TEMPLATE.replace("<|im_end|>", "\n<|im_end|>"))
    assert EOS not in tokenizer.encode_reply("no").tolist()[:3]
    assert tokenizer.encode_reply("no").tolist().count(EOS) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}",
        "{{ raise_exception('not for you') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ messages[0].parts[0].text.strip() }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_that_cannot_put_a_question_is_one_sentence(template: str) -> None:
    with pytest.raises(LoadError, match=r"cannot use the chat template of the test: \w+.*chat_template\.jinja"):
        ChatTemplate(byte_tokenizer(template), "the test")


def test_a_chat_that_the_template_refuses_later_is_one_sentence_too() -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}" + TEMPLATE
    tokenizer = tokenizer_with(template)
    with pytest.raises(LoadError, match=r"refuses a chat of user, assistant, user: TemplateError: one turn only"):
        tokenizer.encode_reply("again")
