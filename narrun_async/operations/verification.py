"""Verifies a database: every invariant that rows can show, for all experiments or for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from narrun_async.errors import ExitCode
from narrun_async.models import ExperimentId, IdPlan, Inheritance, InvariantFinding
from narrun_async.operations.experiments import LATEST, FindingStore, find_experiment
from narrun_async.operations.repairing import find_repairs
from narrun_async.ports import LegacyStore, VerificationStore


class VerifiableStore(FindingStore, VerificationStore, LegacyStore, Protocol):
    """What verifying needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, and what fell short."""

    #: None: everything in the database
    experiment_id: ExperimentId | None
    findings: Sequence[InvariantFinding]
    inheritance: Inheritance
    #: ids that the predecessor wrote as numbers, in the whole database
    odd_ids: IdPlan

    @property
    def exit_code(self) -> ExitCode:
        """What the predecessor left behind fails nothing."""
        holds = all(finding.holds for finding in self.findings)
        return ExitCode.COMPLETED if holds else ExitCode.BAD_DATA


async def verify(store: VerifiableStore, wanted: str | None) -> Verification:
    """Look for violations. Only reads, and is safe beside a run.

    :param wanted: an id, a prefix, or `latest`, which is the newest here: one verifies finished ones, too
    :raises UsageError: no experiment answers to it
    """
    experiment_id = await _resolve(store, wanted) if wanted is not None else None
    return Verification(
        experiment_id=experiment_id,
        findings=await store.check_invariants(experiment_id),
        inheritance=await store.load_inheritance(experiment_id),
        odd_ids=await find_repairs(store),
    )


async def _resolve(store: FindingStore, wanted: str) -> ExperimentId:
    if wanted == LATEST and (experiments := await store.list_experiments()):
        return experiments[0].experiment_id
    return (await find_experiment(store, wanted)).experiment_id
