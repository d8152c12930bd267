"""Owns the shape of a row of the fault matrix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """One fault from outside and the right answer to it."""

    #: a letter for the part of the house (P process, D disk, L lock, N network, A answer, W workbook, Y YAML, T time,
    #: R resume, S security), and a number
    id: str
    fault: str
    #: how the tests bring it about
    injected: str
    #: what must happen, with its figure
    required: str
    #: why no test brings it about; None where one does
    not_covered: str | None = None
