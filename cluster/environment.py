"""Environment variables that libraries read when they are imported: set once, before anything heavy is.

Ray would listen on every interface; told that it need not form a cluster of machines, it uses loopback alone.
"""

import os

_DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own switch for "this machine only", on Linux too
    # Progress bars and notices would break up the console; memr says itself what it does.
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def prepare_environment() -> None:
    """What the user has set stays."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
