"""The ledger as an Arrow table, one row per lease: ledger.parquet of a checkpoint."""

import numpy as np
import pyarrow as pa

from cluster.record.ledger import STATUSES, LedgerSnapshot

LEDGER_SCHEMA = pa.schema(
    [
        ("lease_id", pa.int64()),
        ("problem_id", pa.string()),
        ("fate", pa.string()),
        ("reason", pa.string()),
        ("policy_version", pa.int64()),
    ]
)


def ledger_to_table(ledger: LedgerSnapshot) -> pa.Table:
    """A row per lease, in their order."""
    leases = range(len(ledger))
    columns = [
        pa.array(np.arange(len(ledger))),
        pa.array(ledger.problems_N, pa.string()),
        pa.DictionaryArray.from_arrays(pa.array(ledger.fates_N), [fate.value for fate in STATUSES]).cast(pa.string()),
        pa.array([ledger.reasons.get(lease_id, "") for lease_id in leases], pa.string()),
        pa.array(ledger.into_N.astype(np.int64)),
    ]
    return pa.Table.from_arrays(columns, schema=LEDGER_SCHEMA)


def ledger_from_table(table: pa.Table) -> LedgerSnapshot:
    """Raises ValueError for rows that no ledger wrote."""
    if table["lease_id"].to_pylist() != list(range(table.num_rows)):
        raise ValueError("the lease ids are not 0, 1, 2 and so on")
    codes = {fate.value: code for code, fate in enumerate(STATUSES)}
    fates = table["fate"].to_pylist()
    if unknown := set(fates) - codes.keys():
        raise ValueError(f"{min(unknown)[:80]!r} is no fate")
    into_N = table["policy_version"].to_numpy()
    if not np.all((into_N >= -1) & (into_N < 2**31)):
        raise ValueError("a policy version is out of range")
    return LedgerSnapshot(
        fates_N=np.array([codes[fate] for fate in fates], np.uint8),
        problems_N=tuple(table["problem_id"].to_pylist()),
        into_N=into_N.astype(np.int32),
        reasons={lease_id: reason for lease_id, reason in enumerate(table["reason"].to_pylist()) if reason},
    )
