"""Loading what the configuration names: whatever a library raises on the way becomes one sentence that says what to do.

Readers of models, tokenizers, templates and encoders raise anything: ImportError for a missing package, SafetensorError for
half a file, a bare Exception for a broken tokenizer.json, jinja2's errors. No list of types is complete.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from contracts.errors import ConfigError, DataError, LoadError, MemrError

MAX_TOLD = 600
"""Characters of a library's own words that are repeated."""

_REMOTE_CODE = "trust_remote_code"
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "memory ran out",
    "cublas_status_alloc_failed",
    "is less than desired gpu memory utilization",  # vLLM: others hold the card's memory
    "no available memory for the cache blocks",  # vLLM: the weights left none
)
"""In small letters."""


@contextmanager
def loading(failed: str, advice: str = "") -> Iterator[None]:
    """Inside, every error is a LoadError: "`failed`: type and message. advice". What memr says itself stays as it is.

    failed: a clause, for example "cannot load the model m".
    """
    try:
        yield
    except (LoadError, ConfigError):
        raise
    except DataError as error:
        raise LoadError(str(error)) from error
    except MemrError:
        raise
    except Exception as error:
        raise LoadError(f"{failed}: {_said(error)}. {_way_out(error, advice)}".rstrip(" .")) from error


@contextmanager
def named_data() -> Iterator[None]:
    """Inside, a DataError is a LoadError with the same words: it is about a file that the configuration names."""
    try:
        yield
    except LoadError:
        raise
    except DataError as error:
        raise LoadError(str(error)) from error


def missing_package(error: ImportError) -> LoadError:
    """Another start would miss it too."""
    return LoadError(
        f"a Python package cannot be imported: {error_text(error)}. Install what is missing: `make setup` has all that memr needs"
    )


def error_text(error: BaseException) -> str:
    """Type and message in one line, without the full stop at its end."""
    words = " ".join(str(error).split())
    if len(words) > MAX_TOLD:
        words = f"{words[:MAX_TOLD]} ..."
    return f"{type(error).__name__}: {words}".rstrip(" .:")


def out_of_memory(error: BaseException) -> bool:
    """Of this process or of its GPU; torch's errors have no type of their own on a CPU."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _said(error: Exception) -> str:
    """A library that asks for trust_remote_code asks for what memr does not do."""
    if _REMOTE_CODE not in str(error):
        return error_text(error)
    return (
        f"{type(error).__name__}: it needs code that comes with its files, and memr runs none ({_REMOTE_CODE} is off "
        "everywhere)"
    )


def _way_out(error: Exception, advice: str) -> str:
    if _REMOTE_CODE in str(error):
        return "Choose one that the installed libraries have the code of"
    if out_of_memory(error):
        return "Choose a smaller model or data type, or make room: `memr doctor` says what is free"
    return advice
