"""Whether prompts hold what they were made of: a chat template is a program, and some leave out what they were given.

prompts + problems -> LoadError for a question that is not in its prompt | a note for each other message that is not

Compared are texts as the tokenizer gives them back, without white space and case, so that a template may trim and a
tokenizer may normalise.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.errors import LoadError
from contracts.ports import Tokenizer
from contracts.problem import ChatMessage, Problem
from tasks.question_hash import normalise_question

NUM_READ = 64
"""Problems whose prompts are read again; all of them are compared with each other."""
UNKNOWN = "\ufffd"
REPLY = "reply-turn-marker"
MAX_SHOWN = 60

_NAMES = {
    "system": "system message (task.system_prompt)",
    "user": "worked examples' questions",
    "question": "questions, at their beginning,",
}
_MEND = "Mend chat_template.jinja in the model's folder"


def lost_from_prompts(
    problems: Sequence[Problem], prompts: Sequence[NDArray[np.int32]], tokenizer: Tokenizer
) -> tuple[str, ...]:
    """A sentence for each kind of message that the template leaves out beside the question. prompts: token ids, one array
    [P] per problem. Raises LoadError where a question is not in its prompt, or where two have the same prompt."""
    _refuse_equal_prompts(problems, prompts, tokenizer)
    notes: dict[str, str] = {}
    for problem, prompt_P in list(zip(problems, prompts, strict=True))[:NUM_READ]:
        for message, shown in _lost(problem.messages, tokenizer.decode(prompt_P), tokenizer):
            if message is problem.messages[-1] and not _ends_there(message, tokenizer.decode(prompt_P)):
                raise LoadError(
                    f"problem {problem.problem_id}: the chat template leaves its last message out of the prompt, in part or "
                    f"altogether: {shown!r} does not stand there, so the policy never sees the question. {_MEND}"
                )
            role = "question" if message is problem.messages[-1] else message["role"]
            notes.setdefault(role, _note(role, shown))
    return tuple(notes.values())


def refuse_lost_reply(tokenizer: Tokenizer) -> None:
    """Raises LoadError where what an environment says between two turns does not reach the policy: for a template that loses
    turns or refuses them (ChatTemplate.loses_turns, in its words), and for a tokenizer that has no tokens for the text."""
    if REPLY not in tokenizer.decode(tokenizer.encode_reply(REPLY)):
        raise LoadError(
            "the tokenizer does not give back what an environment replies, so the policy would never see it. Give the tokenizer "
            "that the model was trained with, or take a task of one turn (task.environment = 'single')"
        )


def refuse_same_chat(problems: Sequence[Problem]) -> None:
    """Raises LoadError for problems of one turn that differ in their question and not in what the policy is shown."""
    first_with: dict[tuple[str, ...], Problem] = {}
    for problem in problems:
        first = first_with.setdefault(tuple(message["content"] for message in problem.messages), problem)
        if squashed(first.question) != squashed(problem.question):
            raise LoadError(
                f"problems {first.problem_id} and {problem.problem_id} show the policy the same messages, and their questions "
                f"are two: {first.question[:MAX_SHOWN]!r}, {problem.question[:MAX_SHOWN]!r}. Put the question into "
                "Problem.messages"
            )


def squashed(text: str) -> str:
    """Equal for texts that differ in white space, case or the Unicode form of their characters alone."""
    return "".join(normalise_question(text).split())


def _ends_there(message: ChatMessage, prompt: str) -> bool:
    """A template may leave out how every question begins ("What is "); what it cuts off at the end is lost."""
    text = squashed(message["content"])
    return text[2 * len(text) // 3 :] in squashed(prompt)


def _note(role: str, shown: str) -> str:
    name = _NAMES.get(role, f"messages of the {role}")
    return f"the chat template leaves a part of the {name} out of prompts: {shown!r} does not stand there. {_MEND} if it should"


def _lost(messages: Sequence[ChatMessage], prompt: str, tokenizer: Tokenizer) -> Iterator[tuple[ChatMessage, str]]:
    """Messages that are not in the prompt, the last one first, each with how it begins."""
    there = squashed(prompt)
    for message in reversed(messages):
        content = message["content"]
        if message["role"] == "assistant":  # templates leave reasoning out of earlier turns, as models are trained
            content = content.rpartition("</think>")[2]
        if squashed(tokenizer.decode(tokenizer.encode(content))) not in there:
            yield message, content.strip()[:MAX_SHOWN]


def _refuse_equal_prompts(
    problems: Sequence[Problem], prompts: Sequence[NDArray[np.int32]], tokenizer: Tokenizer
) -> None:
    first_with: dict[bytes, Problem] = {}
    for problem, prompt_P in zip(problems, prompts, strict=True):
        first = first_with.setdefault(prompt_P.tobytes(), problem)
        if _asks(first) != _asks(problem) and UNKNOWN not in tokenizer.decode(prompt_P):
            raise LoadError(
                f"problems {first.problem_id} and {problem.problem_id} have the same prompt, and their questions are two: "
                f"{first.question[:MAX_SHOWN]!r}, {problem.question[:MAX_SHOWN]!r}. The chat template leaves the question "
                "out, or the tokenizer knows none of its characters: take the model's own template and tokenizer"
            )


def _asks(problem: Problem) -> list[str]:
    return [squashed(message["content"]) for message in problem.messages]
