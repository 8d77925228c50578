"""The root of every settings class: frozen and strict. Unknown keys fail; former settings are constants.

Settings sit beside their owner in a light `config.py`; `cluster/config/run_config.py` puts them together, and turns
pydantic's complaints into messages with file, section, line and the nearest known name.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)

T = TypeVar("T")


class Former(Generic[T]):
    """A value that was a setting once: an attribute of the settings, at the one value that it has now.

    An older file may name it at that value alone. last: the commit that still takes another one. instead: what to write
    now. follows: from other settings.
    """

    def __init__(self, value: Callable[[Any], T], last: str, instead: str, *, follows: bool) -> None:
        self._value, self._last, self._instead, self._follows = value, last, instead, follows

    def __get__(self, settings: Any, owner: type | None = None) -> T:
        return self._value(owner if settings is None else settings)

    def refuse_other(self, name: str, given: Any, now: Any) -> None:
        """Raises ValueError for a former setting at another value than it has now."""
        if (tuple(given) if isinstance(given, list) else given) != now:
            is_now = f"{'it is' if self._follows else 'it is always'} {now!r}{' here' * self._follows}"
            raise ValueError(
                f"{name} = {given!r}: no setting any more, {is_now}. {self._instead} (commit {self._last} is the last that takes "
                "another value)"
            )


def constant(value: T, last: str, instead: str = "Leave it out") -> Former[T]:
    """Declares a former setting that has one value in every run."""
    return Former(lambda _: value, last, instead, follows=False)


def derived(last: str, instead: str) -> Callable[[Callable[[Any], T]], Former[T]]:
    """Declares a former setting that follows from others: for a method that computes it from the settings."""
    return lambda method: Former(method, last, instead, follows=True)


CODE_PATTERN = r"^.+:[A-Za-z_][A-Za-z0-9_]*$"
UsersCode = Annotated[str, Field(pattern=CODE_PATTERN, description="FILE.py:name or package.module:name")]
"""Beside the names of a table: code of the user's (loading/dotted_path.py)."""


class Settings(BaseModel):
    """A frozen section of the configuration. Every field carries a `description`: one line of text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        ignored_types=(Former,),
    )

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """Texts of which the empty one means something; what else has no value is left out."""

    @classmethod
    def former(cls) -> dict[str, Former[Any]]:
        """Names of former settings, each with what it is now."""
        owners = reversed(cls.__mro__)
        return {name: found for owner in owners for name, found in vars(owner).items() if isinstance(found, Former)}

    @model_validator(mode="wrap")
    @classmethod
    def _read_former(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Raises ValueError for a former setting at another value than it has now."""
        if not isinstance(values, dict):
            return handler(values)
        former = cls.former()
        settings = handler({name: value for name, value in values.items() if name not in former})
        for name in former.keys() & values.keys():
            former[name].refuse_other(name, values[name], getattr(settings, name))
        return settings

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
