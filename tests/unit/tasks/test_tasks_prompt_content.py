"""A question that does not reach the policy is found before anything is trained; whatever else a template leaves out is said."""

from pathlib import Path

import pytest

from actors.config import ActorSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from contracts.errors import LoadError
from contracts.problem import ChatMessage, Problem
from tasks.config import TaskSettings
from tasks.load import load_task
from tasks.prompts import HfTokenizer, check_prompt_lengths
from tasks.task_data import look_through
from tests.unit.tasks.test_tasks_chat_template import tokenizer_with
from tests.unit.tasks.test_tasks_prompts import TEMPLATE

FIRST_ONLY = "{{ messages[0]['role'] }}: {{ messages[0]['content'] }}\nassistant: "
FIXED = "user: What is 7 + 12?\nassistant: "
CUT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'][:20] }}\n{% endfor %}assistant: "
TRIMS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}assistant: "
NO_EXAMPLES = (
    "{% for m in messages %}{% if m['role'] == 'system' or loop.last %}{{ m['role'] }}: {{ m['content'] }}\n{% endif %}"
    "{% endfor %}assistant: "
)
EARLIER_TURNS = "leaves earlier turns out of a chat of several"
SPLITS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'].split('</think>')[-1] }}\n{% endfor %}assistant: "


def user(text: str) -> ChatMessage:
    return {"role": "user", "content": text}


def lost(template: str, settings: TaskSettings) -> tuple[str, ...]:
    data = look_through(load_task(settings), 8)
    return data.check_prompts(tokenizer_with(template), 4000).notes


@pytest.mark.parametrize("template", [FIXED, "{{ bos_token }}assistant: ", "{{ messages | length }}"])
def test_a_template_without_the_question_is_refused_where_it_is_loaded(template: str) -> None:
    with pytest.raises(
        LoadError,
        match=r"the chat template of the test leaves the user's message out, or alters it, so the policy would not see its problem",
    ):
        tokenizer_with(template)


def test_a_template_that_trims_is_none_of_these() -> None:
    assert lost(TRIMS, TaskSettings(answer_form="think_answer", worked_examples=2)) == ()


def test_a_template_that_shows_the_first_message_alone_is_refused_where_examples_come_first() -> None:
    alone = TaskSettings(system_prompt="")
    assert lost(FIRST_ONLY, alone) == ()
    with pytest.raises(LoadError, match=EARLIER_TURNS):
        lost(FIRST_ONLY, alone.model_copy(update={"worked_examples": 1}))


def test_a_template_that_cuts_questions_is_refused_although_prompts_differ() -> None:
    long = [Problem(str(i), "", "1", (user(f"{i}: what is the sum of {i} and {i}?"),)) for i in range(4)]
    with pytest.raises(LoadError, match=r"problem 0: the chat template leaves its last message out .* in part"):
        check_prompt_lengths(long, tokenizer_with(CUT), 4000)


def test_a_template_that_leaves_out_how_every_question_begins_is_said() -> None:
    [note] = lost(TEMPLATE.replace("m['content']", "m['content'].removeprefix('What is ')"), TaskSettings())
    assert note.startswith(
        "the chat template leaves a part of the questions, at their beginning, out of prompts: 'What is"
    )


def test_a_tokenizer_that_knows_no_character_of_the_questions_is_refused() -> None:
    made = tokenizer_with(TEMPLATE)
    two = [Problem(str(i), f"{i}?", "1", (user(f"{i}?"),)) for i in (1, 2)]

    class Blind(HfTokenizer):
        def _encode(self, text: str):  # type: ignore[no-untyped-def]
            return made._encode("".join("#" if char.isdigit() else char for char in text))

    blind = Blind(made._tokenizer, made.eos_token_ids, "the test")
    with pytest.raises(LoadError, match="the tokenizer knows none of its characters"):
        check_prompt_lengths(two, blind, 4000)


def test_a_part_of_an_instruction_that_the_template_leaves_out_is_said_and_lost_examples_are_refused() -> None:
    [note] = lost(SPLITS, TaskSettings(answer_form="think_answer"))
    assert note.startswith("the chat template leaves a part of the system message (task.system_prompt) out of prompts")
    with pytest.raises(LoadError, match=EARLIER_TURNS):
        lost(NO_EXAMPLES, TaskSettings(worked_examples=1))


def test_reasoning_that_a_template_takes_out_of_earlier_turns_is_its_models_own_way() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1] }}"
        "{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}assistant: "
    )
    assert lost(template, TaskSettings(answer_form="think_answer", worked_examples=1)) == ()


def test_a_reply_that_the_template_does_not_show_is_refused_where_a_task_replies() -> None:
    cut_short = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages[:2] %}")
    assert lost(cut_short, TaskSettings()) == ()
    with pytest.raises(LoadError, match=EARLIER_TURNS):
        lost(cut_short, TaskSettings(environment="retry"))


def test_a_reply_that_the_tokenizer_cannot_write_is_put_down_to_the_tokenizer() -> None:
    data = look_through(load_task(TaskSettings(environment="retry")), 8)
    with pytest.raises(LoadError, match=r"tokenizer does not give back what an environment replies.*'single'"):
        data.check_prompts(CharTokenizer("0123456789+-= "), 4000)
    data.check_prompts(CharTokenizer(ActorSettings().scripted.alphabet), 4000)


OWN_TASK = """
from contracts.problem import Problem
from tasks.environment import SingleTurn

def render(question): return [{"role": "user", "content": "Solve the problem."}]

class Mine:
    num_train = 4
    def __init__(self, settings): pass
    def train_problem(self, index): return Problem(str(index), f"{index}?", "1", tuple(render(f"{index}?")))
    def held_out(self, n): return []
"""
WORLD = """
    def environment(self, problem): return World()

class World:
    def step(self, text): return None
"""


def test_a_task_whose_own_render_ignores_the_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN_TASK)
    with pytest.raises(LoadError, match=r"problems 0 and 1 show the policy the same messages.*Problem\.messages"):
        look_through(load_task(TaskSettings(kind=f"{path}:Mine")), 0)


def test_a_world_that_tells_its_question_later_may_begin_with_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN_TASK + WORLD)
    assert look_through(load_task(TaskSettings(kind=f"{path}:Mine")), 0).several_turns
