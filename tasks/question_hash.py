"""A question's fingerprint: names problems and decides on which side of the train / held-out split they fall.

Nothing but the normalised text enters, so the same question has the same name and the same side in every
process, run and machine, whatever the seed, the file or the order.
"""

import hashlib
import unicodedata


def normalise_question(question: str) -> str:
    """Equal for questions that differ in case, spacing or the Unicode form of their characters alone."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def question_hash(question: str) -> str:
    """16 hex digits (64 bits of SHA-256) of the normalised question."""
    return hashlib.sha256(normalise_question(question).encode()).hexdigest()[:16]


def is_held_out(question: str, share: float) -> bool:
    """True for `share` of all questions, 0 < share < 1; raising the share only ever adds to them."""
    return int(question_hash(question), 16) < share * 2.0**64
