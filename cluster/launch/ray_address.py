"""`--address`: read, and asked whether anything answers there, before Ray is. Ray itself tries for a minute, in a dozen lines."""

import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contracts.errors import ConfigError, RunStopped

CONNECT_S = 5.0
_OTHER_TOKEN = "InvalidAuthToken"


def refuse_unreachable(address: str) -> None:
    """Raises ConfigError for what is no address, RunStopped where nothing answers. "auto" is found by Ray, on this machine."""
    if address == "auto" or address.startswith("ray://"):
        return
    found = re.fullmatch(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 2**16:
        raise ConfigError(
            f"--address {address:.100}: write auto, or HOST:PORT of the cluster's head, for example 10.0.0.1:6379"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_S).close()
    except OSError as error:
        raise RunStopped(
            f"cannot join the Ray cluster at {address}: nothing answers there ({error}). Is its head running (`ray status` on it), "
            "is this its port (6379 unless it was started with another), and does a firewall let it through?"
        ) from error


@contextmanager
def held_back_stderr() -> Iterator[Callable[[], str]]:
    """Inside, what the process's libraries write to stderr is kept from the terminal; yields what came so far. Ray's own
    part says the same line every second while it tries."""
    with tempfile.TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)

        def told() -> str:
            return os.pread(held.fileno(), 1 << 20, 0).decode(errors="replace")

        try:
            yield told
        finally:
            os.dup2(before, 2)
            os.close(before)


def why_not_joined(error: Exception, told: str) -> str:
    """What to look at. told: what Ray wrote while it tried."""
    if _OTHER_TOKEN in told:
        return (
            "it does not take our token: give its own by RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token "
            "(docs/cluster.md)"
        )
    return (
        f"{error}. Is its head running and reachable (`ray status`), is Ray's version the same there, and is its token here "
        "(RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)?"
    )
