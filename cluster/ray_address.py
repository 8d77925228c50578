"""`--address`: read, and asked whether anything answers there, before Ray is. Ray itself tries for a minute, in a dozen lines."""

import re
import socket

from contracts.errors import ConfigError, RunStopped

CONNECT_S = 5.0


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
