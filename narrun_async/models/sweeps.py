"""A sweep: experiments that differ in a few settings, made together and run one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

SweepId = NewType("SweepId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What the database keeps of a sweep; its experiments refer to it. The fields are columns of `sweeps`."""

    sweep_id: SweepId
    #: one sweep a name
    sweep_name: str
    #: of its name and of the snapshots of its experiments, in order
    definition_sha256: str
    #: the file that it was made from
    sweep_file: str
    notes: str | None
    #: local `YYYY-MM-DD HH:MM:SS`
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlace:
    """Where an experiment belongs within its sweep."""

    sweep_id: SweepId
    #: from 1, the order in which they run
    position: int
    #: axis → its value in words, such as `model.temperature` → `0.2`
    settings: Mapping[str, str] = field(default_factory=dict)
