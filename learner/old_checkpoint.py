"""Checkpoints of older commits that no learner of now can go on from. Loads without torch."""

from pathlib import Path

from contracts.errors import ConfigError

_SCRIPTED, _LAST_COMMIT = "scripted.json", "09489b9"


def refuse_old(learner_folder: Path) -> None:
    """Raises ConfigError for what the scripted learner wrote while it had no weights."""
    if (learner_folder / _SCRIPTED).exists():
        raise ConfigError(
            f"{learner_folder} was written by the scripted learner of commit {_LAST_COMMIT} or before, which had no weights: "
            "resume the run with that commit, or start another one with --set run.name=NAME"
        )
