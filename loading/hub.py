"""Whether the hub can be had at all, asked before its library is: that retries for a minute where there is no network.

name of a model -> it can be an id -> its files are in the cache | the hub's host takes a connection -> from_pretrained
"""

import queue
import socket
import threading
import urllib.request
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from contracts.errors import LoadError
from loading.load_errors import error_text

REACH_S = 5.0
"""For the host's name and a connection. The first packet is sent again after 1 and 3 s; slow downloads are not concerned."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def may_be_id(name: str) -> bool:
    """False for what can be nothing but a path."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith(("~", "."))


def refuse_unreachable(
    what: str, repo_id: str, advice: str, files: Collection[str] = WEIGHTS, cache: str | None = None
) -> None:
    """Raises LoadError where the hub's host takes no connection within REACH_S and none of `files` is in the cache.

    what: a clause, for example "model.name = 'a/b'". cache: its folder, None for the hub's own. With HF_HUB_OFFLINE no request is made: the library itself looks at the cache
    alone."""
    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or any(
        isinstance(try_to_load_from_cache(repo_id, file, cache_dir=cache), str) for file in files
    ):
        return
    host, port = _first_host(urlsplit(constants.ENDPOINT))
    if (reason := why_unreachable(host, port)) is not None:
        raise LoadError(
            f"{what}: no folder of that name is here, and the hub cannot be reached ({host}:{port}: {reason}). {advice}; or "
            f"download it where there is a network, copy it into this machine's cache ({cache or constants.HF_HUB_CACHE}), and set "
            "HF_HUB_OFFLINE=1"
        )


def why_unreachable(host: str, port: int, limit_s: float = REACH_S) -> str | None:
    """None where one of the host's addresses takes a connection. Addresses are tried side by side: one family may be cut off.

    Looking up a name cannot be interrupted, so it runs on a thread of its own, which may be left behind."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_look_up, args=(host, port, limit_s, answers), daemon=True).start()
    try:
        return answers.get(timeout=limit_s)
    except queue.Empty:
        return f"no answer within {limit_s:g} s"


def _look_up(host: str, port: int, limit_s: float, answers: "queue.SimpleQueue[str | None]") -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answers.put(error_text(error))
        return
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    each: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for address in addresses:
        threading.Thread(target=_connect, args=(address, port, limit_s, each), daemon=True).start()
    reason: str | None = "it has no address"
    for _ in addresses:
        reason = each.get()
        if reason is None:
            break
    answers.put(reason)


def _connect(address: str, port: int, limit_s: float, answers: "queue.SimpleQueue[str | None]") -> None:
    try:
        socket.create_connection((address, port), timeout=limit_s).close()
    except OSError as error:
        answers.put(error_text(error))
    else:
        answers.put(None)


def _first_host(endpoint: SplitResult) -> tuple[str, int]:
    """Where the first packet goes: to the proxy of the environment, where there is one for this address."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all")
    if proxy and endpoint.hostname and not urllib.request.proxy_bypass(endpoint.hostname):
        endpoint = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    default = 443 if endpoint.scheme == "https" else 80
    return endpoint.hostname or "", endpoint.port or default
