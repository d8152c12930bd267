"""Owns the list of faults that this program must stand: one row an id; the tests that bring a fault about carry its id.

A row says what goes wrong, how a test brings it about and what must happen. What was measured is not written here: the
tests say it, and `tests/reliability.py` puts both beside each other in `docs/reliability.md`.
"""

from __future__ import annotations

from fault_matrix import answers, batches, disk, entrances, locks, network, process, retries, schedules, security
from fault_matrix.rows import FaultRow

__all__ = ["FAULTS", "FAULT_IDS", "FaultRow"]

#: every row, in the order in which people read them
FAULTS: tuple[FaultRow, ...] = (
    *process.ROWS,
    *schedules.ROWS,
    *disk.ROWS,
    *locks.ROWS,
    *network.ROWS,
    *answers.ROWS,
    *entrances.ROWS,
    *retries.ROWS,
    *security.ROWS,
    *batches.ROWS,
)

FAULT_IDS: frozenset[str] = frozenset(row.id for row in FAULTS)
