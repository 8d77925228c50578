"""The root of every settings class: frozen and strict. Unknown keys fail.

Settings sit beside their owner in a light `config.py`; `cluster/config.py` puts them together, and turns
pydantic's complaints into messages with file, section, line and the nearest known name.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section of the configuration. Every field carries a `description`: one line of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)
