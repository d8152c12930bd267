"""Owns the rows S of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = ()
