"""A user's reward function with every fault such functions have, chosen by the answer's own text."""

import ctypes
import os
import time
import zlib
from typing import Any

FAULTS = ("raises", "hangs in C", "forks", "says NaN", "says a word", "dies", "eats memory", "prints rubbish")
ONE_IN = 24
"""Answers per fault, whichever of them."""


def fault_of(text: str) -> str | None:
    draw = zlib.crc32(text.encode()) % (ONE_IN * len(FAULTS))
    return FAULTS[draw] if draw < len(FAULTS) else None


def judge(inputs: Any) -> Any:
    match fault_of(inputs.answer.text):
        case "raises":
            raise RuntimeError("the judge is out of its mind")
        case "hangs in C":
            ctypes.CDLL(None).sleep(3600)  # no signal handler of Python runs in here
        case "forks":
            if os.fork() == 0:
                time.sleep(3600)
        case "says NaN":
            return float("nan")
        case "says a word":
            return "good"
        case "dies":
            os._exit(7)
        case "eats memory":
            return float(len(bytearray(2**40)))
        case "prints rubbish":
            os.write(1, b'{"value": 1e9, "correct": true, "parts": {}}\n')
    return 0.0
