"""The root of every settings class: frozen and strict. Unknown keys fail.

Settings sit beside their owner in a light `config.py`; `cluster/config/run_config.py` puts them together, and turns
pydantic's complaints into messages with file, section, line and the nearest known name.
"""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

LAST_WITH_ALL_SETTINGS = "09489b9"

UsersCode = Annotated[
    str, Field(pattern=r"^.+:[A-Za-z_][A-Za-z0-9_]*$", description="FILE.py:name or package.module:name")
]
"""Beside the names of a table: code of the user's (dotted_path.py)."""


class Settings(BaseModel):
    """A frozen section of the configuration. Every field carries a `description`: one line of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """Texts of which the empty one means something; what else has no value is left out."""

    fixed: ClassVar[tuple[str, ...]] = ()
    """Names of former settings that are constants of the class now: an older file may say them, at that value alone."""

    @model_validator(mode="before")
    @classmethod
    def _forget_fixed(cls, values: Any) -> Any:
        """Raises ValueError for a former setting at another value than its constant's."""
        if not isinstance(values, dict):
            return values
        for name in cls.fixed:
            if name in values and values[name] != getattr(cls, name):
                raise ValueError(
                    f"{name} = {values[name]!r}: no setting any more, it is always {getattr(cls, name)!r}. Leave it out "
                    f"(commit {LAST_WITH_ALL_SETTINGS} is the last that takes another value)"
                )
        return {name: value for name, value in values.items() if name not in cls.fixed}

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: Any, info: ValidationInfo) -> Any:
        """A name, path or id of nothing but blanks is found out where it is used, hours later."""
        texts = value if isinstance(value, list | tuple) else (value,)
        if info.field_name not in cls.may_be_empty and any(
            isinstance(text, str) and not text.strip() for text in texts
        ):
            raise ValueError("an empty text; give a value, or leave the setting out")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        """No path takes a NUL, no file half a surrogate pair, no column a number beyond 64 bits."""
        if isinstance(value, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("holds a NUL character or half of a surrogate pair; take it out")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number beyond 64 bits; give a smaller one")
        return value
