"""What `memory.encoder` may be, as far as its name tells. Loads without torch."""

HASH_PREFIX = "hash:"
"""Begins the name of an encoder that needs no model, with its dimension behind it."""


def is_hash(encoder: str) -> bool:
    """Whether the encoder is a hash of character n-grams rather than a model."""
    return encoder.startswith(HASH_PREFIX)


def hash_dimension(encoder: str) -> int | None:
    """Of `hash:64`; None for another encoder, and where what follows is no number of dimensions."""
    number = encoder.removeprefix(HASH_PREFIX)
    found = is_hash(encoder) and number.isascii() and number.isdecimal() and len(number) < 6
    return int(number) if found and 2 <= int(number) <= 2**16 else None
