"""Which policy versions a worker holds, which it may drop, and which version serves a lease. No I/O of its own.

A version number means one artifact for the whole run: the hash of every version ever seen is remembered, and a second
artifact under the same number is refused.
"""

from collections import Counter
from collections.abc import Sequence

from contracts.adapter import AdapterManifest
from contracts.errors import AdapterMissingError
from contracts.problem import Lease, Purpose


class AdapterCache:
    """The newest `num_kept` versions, any that running leases have pinned, and the last older one that was asked for:
    an evaluation's, whose leases come one after the other."""

    def __init__(self, num_kept: int) -> None:
        self._num_kept = num_kept
        self._held: set[int] = set()
        self._hashes: dict[int, str] = {}
        self._pins: Counter[int] = Counter()
        self._visitor: int | None = None

    @property
    def held(self) -> frozenset[int]:
        return frozenset(self._held)

    @property
    def newest(self) -> int | None:
        return max(self._held, default=None)

    def is_new(self, manifest: AdapterManifest) -> bool:
        """Whether this artifact has yet to be loaded. Raises ValueError for another artifact under a known number."""
        known = self._hashes.get(manifest.policy_version, manifest.weights_hash)
        if known != manifest.weights_hash:
            raise ValueError(
                f"policy version {manifest.policy_version} is {known[:12]} here and {manifest.weights_hash[:12]} in "
                f"the adapter offered; version numbers are never reused, publish it under a new one"
            )
        return manifest.policy_version not in self._held

    def put(self, manifest: AdapterManifest) -> list[int]:
        """Hold this version; returns the versions to drop, which the caller does not hold any more."""
        version = manifest.policy_version
        if self._held and version < max(self._held):
            self._visitor = version
        self._held.add(version)
        self._hashes[version] = manifest.weights_hash
        return self._take_off()

    def serving(self, lease: Lease) -> int:
        """The version for a lease: the newest for training, exactly the one named for evaluation."""
        if lease.purpose is Purpose.EVAL:
            found = lease.policy_version if lease.policy_version in self._held else None
        else:
            found = self.newest if self.newest is not None and self.newest >= lease.policy_version else None
        if found is None:
            wanted = "exactly" if lease.purpose is Purpose.EVAL else "at least"
            raise AdapterMissingError(
                f"lease {lease.lease_id} ({lease.purpose}) needs {wanted} policy version {lease.policy_version}, "
                f"this worker holds {sorted(self._held)}; adopt it first"
            )
        return found

    def pin(self, versions: Sequence[int]) -> None:
        self._pins.update(versions)

    def unpin(self, versions: Sequence[int]) -> list[int]:
        """Release pins; returns the versions to drop now."""
        self._pins.subtract(versions)
        return self._take_off()

    def _take_off(self) -> list[int]:
        newest = set(sorted(self._held)[-self._num_kept :])
        surplus = sorted(v for v in self._held - newest if self._pins[v] == 0 and v != self._visitor)
        self._held -= set(surplus)
        return surplus
