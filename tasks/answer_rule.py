"""Which rule answers are judged by: a run's manifest has its number, so that a run which goes on under another one is told.

Raise ANSWER_RULE with every change of docs/answers.md that gives some answer another verdict, and say what changed.
"""

from tasks.config import AnswerForm, TaskSettings

ANSWER_RULE = 2
FIRST_RULE = 1
"""Of runs whose manifest names none: up to commit be586f9, and development commits between it and rule 2."""

_NUMBERS = "a number must be stated exactly, so that neither `7 + 12` nor `0.0` is 19 or a tiny value"
_CHANGES: dict[int, dict[AnswerForm, str]] = {
    2: {
        "number": "the number that a text states is found otherwise (the first one after ####, checks and reasons left out, "
        f"decimal commas, exponents, units and markdown are read), and {_NUMBERS}",
        "boxed": f"units, markdown, Unicode, exponents and decimal commas are read, and {_NUMBERS}",
        "think_answer": f"units, markdown, Unicode, exponents and decimal commas are read, and {_NUMBERS}",
    }
}


def changes_since(rule: int, settings: TaskSettings) -> str:
    """What answers of these settings are judged by that they were not under `rule`; "" where nothing changed."""
    later = [changes[settings.answer_form] for number, changes in sorted(_CHANGES.items()) if number > rule]
    if not later:
        return ""
    return (
        f"this run was begun under answer rule {rule}, and answers are judged by rule {ANSWER_RULE} from here on: "
        f"{'; '.join(later)}. Accuracies before and after are not of one measure (docs/answers.md)"
    )
