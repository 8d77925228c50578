"""The adapter registry: every published version, where its bytes are, and which may go.

learner --Adapter--> publish: disk copy (`adapters/v000123-<hash>/`, manifest last) and a shared reference
                     -> workers fetch the reference of the version they need

A version is never published twice and never replaced: a folder of the same version with other weights, or of a version that
the log does not know (a life of the run that a power cut took back), gets the name `lost-v000123-<hash>` first. The folder is also a PEFT adapter that plain
`PeftModel.from_pretrained` loads.

Beside the manifest, `refused.json` names the pools of workers that could not prove a version: read back from disk it has no
probes, so nobody could find out again.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from safetensors import SafetensorError, safe_open

from cluster.handles import AdapterRef
from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.errors import ConfigError, DataError
from storage.bounded_json import Count, Finite, Stored, read_bounded, read_fields
from storage.durable import (
    hide_folder,
    place_folder,
    remove_folder,
    replace_file,
    sweep_hidden,
    sync_directory,
    write_file,
)
from storage.peft_folder import WEIGHTS_FILE, peft_files

MANIFEST_FILE = "manifest.json"
REFUSED_FILE = "refused.json"
MAX_WEIGHTS_BYTES = 4 * 2**30


class AdapterRegistry:
    """Versions by number. `share` makes an adapter reachable for workers (ray.put, or nothing in tests)."""

    def __init__(self, directory: Path, share: Callable[[Adapter], AdapterRef], keep: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._share = share
        self._keep = keep
        self._refs: dict[int, AdapterRef] = {}
        self._folders: dict[int, Path] = {}
        self._skipped: dict[int, set[str]] = {}  # pools of workers

    @property
    def newest(self) -> int:
        return max(self._refs)

    def servable(self, pool: str) -> int | None:
        """The newest version that workers of a pool may prove and serve; None where every one was skipped."""
        return max((version for version in self._refs if not self.skipped(version, pool)), default=None)

    def skip(self, policy_version: int, pool: str, *, by_all: bool = False) -> None:
        """No worker of this pool could prove this version: none of them tries it again. by_all: nor any of another pool.
        On disk when this returns."""
        pools = self._skipped.setdefault(policy_version, set())
        pools.add(pool)
        self._write_refused(policy_version, pools, by_all=by_all)

    def proven(self, policy_version: int, pool: str) -> None:
        """A worker of this pool serves it: what an earlier life of the run wrote of refusals holds no more."""
        if self.refused_by_all(policy_version) or pool in self._refused(policy_version).kinds:
            self._write_refused(policy_version, {*self._refused(policy_version).kinds} - {pool}, by_all=False)

    def refused_by_all(self, policy_version: int) -> bool:
        """Whether every pool refused this version, in this life or an earlier one, and none has proven it since."""
        return self._refused(policy_version).by_all

    def _refused(self, policy_version: int) -> "_Refused":
        """Of a version that is in reach."""
        folder = self._folders.get(policy_version)
        return _read_refused(folder) if folder is not None else _Refused(kinds=())

    def _write_refused(self, policy_version: int, pools: Collection[str], *, by_all: bool) -> None:
        refused = _Refused(kinds=tuple(sorted(pools)), by_all=by_all)
        replace_file(self._folders[policy_version] / REFUSED_FILE, refused.model_dump_json().encode())

    def skipped(self, policy_version: int, pool: str) -> bool:
        return pool in self._skipped.get(policy_version, ())

    def reference(self, policy_version: int) -> AdapterRef:
        return self._refs[policy_version]

    def folder(self, policy_version: int) -> Path:
        return self._folders[policy_version]

    def publish(self, adapter: Adapter) -> None:
        """Disk first, synced, then the reference: a version that workers can see is always on disk."""
        version = adapter.manifest.policy_version
        if self._refs and version != self.newest + 1:
            raise ValueError(f"version {version} cannot follow version {self.newest}: versions count up by one")
        self._set_aside([f for f in self._published(version) if f.name != adapter.manifest.name])
        self._folders[version] = write_adapter(adapter, self._directory)
        sweep_hidden(self._directory)
        self._refs[version] = self._share(adapter)

    def set_aside_after(self, policy_version: int) -> list[str]:
        """Before the first `publish` of a life: folders of versions later than the newest that the log knows are another
        life's. Returns their names."""
        folders = [folder for folder in self._directory.glob("v*-*") if _version(folder) > policy_version]
        self._set_aside(folders)
        return sorted(folder.name for folder in folders)

    def _set_aside(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            lost = folder.with_name(f"lost-{folder.name}")
            if lost.exists():
                remove_folder(lost)
            folder.rename(lost)

    def _published(self, policy_version: int) -> list[Path]:
        return sorted(self._directory.glob(f"v{policy_version:06d}-*"))

    def reload(self, policy_version: int) -> bool:
        """Make an older version of this run reachable again, from its folder; False if the folder is gone, or if nobody
        could prove the version: without probes nobody would notice. Raises DataError for a folder that is not what it
        says."""
        if policy_version in self._refs:
            return True
        for folder in self._published(policy_version):
            if (folder / MANIFEST_FILE).exists():
                adapter, refused = read_adapter(folder), _read_refused(folder)
                if refused.by_all:
                    return False
                self._skipped[policy_version] = set(refused.kinds)
                self._refs[policy_version], self._folders[policy_version] = self._share(adapter), folder
                return True
        return False

    def given_up(self, policy_version: int) -> bool:
        """Whether `reload` refuses it because nobody could prove it."""
        found = [f for f in self._published(policy_version) if (f / MANIFEST_FILE).exists()]
        return policy_version not in self._refs and bool(found) and _read_refused(found[0]).by_all

    def prune(self, pinned: Collection[int]) -> None:
        """Forget references, and hide folders, of all but the newest `keep` versions, the newest that each pool
        may serve and the pinned ones; the next `publish`, which syncs the directory anyhow, deletes what is hidden."""
        servable = {self.servable(pool) for pools in self._skipped.values() for pool in pools}
        kept = {*sorted(self._refs)[-self._keep :], *servable, *pinned}
        for version in self._refs.keys() - kept:
            del self._refs[version]
            hide_folder(self._folders.pop(version))


def write_adapter(adapter: Adapter, directory: Path) -> Path:
    """Write `directory/v000123-<hash>/` whole: synced files under a temporary name, then one rename. What stands there
    whole already, from before a crash, stays."""
    manifest = adapter.manifest
    folder = directory / manifest.name
    if folder.exists():
        try:
            read_adapter(folder)
        except DataError:
            remove_folder(folder)
        else:
            sync_directory(directory)
            return folder
    temporary = directory / f".{manifest.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    manifest_bytes = json.dumps(_manifest_dict(manifest), indent=1).encode()
    for name, data in (peft_files(adapter) | {MANIFEST_FILE: manifest_bytes}).items():
        write_file(temporary / name, data)
    place_folder(temporary, folder)
    return folder


class _StoredShape(Stored):
    r: Annotated[int, Field(ge=1, lt=2**31)]
    alpha: Finite
    target_modules: tuple[str, ...]


class _StoredManifest(Stored):
    policy_version: Count
    weights_hash: str
    num_bytes: Count
    base_model: str
    lora: _StoredShape
    dtype: str
    template_hash: str


class _Refused(Stored):
    """kinds: pools that could not prove a version. by_all: it was every pool of the run."""

    kinds: tuple[str, ...]
    by_all: bool = False


def _read_refused(folder: Path) -> _Refused:
    path = folder / REFUSED_FILE
    return read_fields(path, _Refused) if path.exists() else _Refused(kinds=())


def read_adapter(folder: Path) -> Adapter:
    """Raises DataError where the folder is no adapter, or not the one that its name and manifest tell of.

    adapter_config.json is for other tools: here nothing is taken from it.
    """
    try:
        fields = dict(read_fields(folder / MANIFEST_FILE, _StoredManifest))
        manifest = AdapterManifest(**fields | {"lora": LoraShape(**dict(fields["lora"]))})
        if folder.is_symlink() or folder.name != manifest.name:
            raise DataError(f"its manifest is that of {manifest.name[:80]!r}, in a folder of its own")
        adapter = Adapter(manifest, read_bounded(folder / WEIGHTS_FILE, MAX_WEIGHTS_BYTES))
        with safe_open(folder / WEIGHTS_FILE, framework="numpy"):  # reads the header, which must fit the file
            return adapter
    except (DataError, ValueError, OSError, SafetensorError) as error:
        raise DataError(f"{folder} is not an adapter that memr wrote: {error}") from error


def adapter_folder(directory: Path, policy_version: int | None = None) -> Path:
    """That of a version, or of the highest on disk. Raises DataError where there is none,
    ConfigError for a version that is not kept, with those that are."""
    folders = sorted(p for p in directory.glob("v*-*") if (p / MANIFEST_FILE).exists())
    if not folders:
        raise DataError(f"{directory} holds no published adapter; the run stopped before version 0 was written")
    chosen = [folder for folder in folders if policy_version in (None, _version(folder))]
    if not chosen:
        kept = ", ".join(str(_version(folder)) for folder in folders)
        raise ConfigError(f"{directory} has no adapter of version {policy_version}; it keeps those of {kept}")
    return chosen[-1]


def _version(folder: Path) -> int:
    digits = folder.name[1:].partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdecimal() else -1


def _manifest_dict(manifest: AdapterManifest) -> dict[str, object]:
    """Without what the learner reads for the proof, which belongs to the live hand-over and not to the disk copy."""
    fields = {name: getattr(manifest, name) for name in _StoredManifest.model_fields}
    fields["lora"] = dataclasses.asdict(manifest.lora)
    return fields
