"""Makes the experiments of a sweep, all of them or none, and finds the sweep again that a file stands for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from narrun_async.clock import local_now
from narrun_async.config import ExperimentConfig, config_from_snapshot, snapshot_sha256
from narrun_async.errors import UsageError
from narrun_async.models import DataSource, Experiment, Screening, Sweep, SweepId, SweepPlace
from narrun_async.operations.experiments import freeze_experiment, is_incomplete, require_snapshot
from narrun_async.ports import ExperimentStore, SourceStore, SweepStore


class SweepingStore(SourceStore, ExperimentStore, SweepStore, Protocol):
    """What making a sweep needs of a store."""


async def begin_sweep(
    store: SweepingStore,
    *,
    name: str,
    definition_sha256: str,
    notes: str | None,
    sweep_file: Path,
    cells: Sequence[tuple[Mapping[str, str], ExperimentConfig]],
    source: DataSource,
    screening: Screening | None,
    log_root: Path,
) -> Sequence[Experiment]:
    """Freeze every experiment of a sweep and store them in one transaction.

    :param cells: of each experiment what it is told apart by, and its configuration
    :raises BadInputError: the data source holds no narratives
    """
    sweep = Sweep(
        sweep_id=SweepId(str(uuid.uuid4())),
        sweep_name=name,
        definition_sha256=definition_sha256,
        sweep_file=str(sweep_file.absolute()),
        notes=notes,
        created_at=local_now(),
    )
    experiments = [
        await freeze_experiment(
            store,
            config,
            source,
            screening=screening,
            config_file=None,
            log_root=log_root,
            sweep=SweepPlace(sweep_id=sweep.sweep_id, position=position, settings=settings),
        )
        for position, (settings, config) in enumerate(cells, start=1)
    ]
    await store.create_sweep(sweep, experiments)
    return await store.list_sweep(sweep.sweep_id)


async def find_begun_sweep(
    store: SweepStore, *, name: str, definition_sha256: str, configs: Sequence[ExperimentConfig]
) -> Sequence[Experiment] | None:
    """The experiments of the sweep of that name, in their order; None where there is none yet.

    :param configs: of each experiment that its file describes
    :raises UsageError: it was begun with other experiments, which this file does not describe any more
    """
    sweep = await store.find_sweep(name)
    if sweep is None:
        return None
    experiments = await store.list_sweep(sweep.sweep_id)
    if sweep.definition_sha256 != definition_sha256 and not _are_made_of(experiments, configs):
        n_open = sum(map(is_incomplete, experiments))
        raise UsageError(
            f"the sweep {name!r} was begun on {sweep.created_at} with other settings ({len(experiments)} experiments,"
            f" {n_open} of them not complete)",
            advice="give this one another `sweep.name`, or undo the change; `narrun resume ID` goes on with one",
        )
    return experiments


def _are_made_of(experiments: Sequence[Experiment], configs: Sequence[ExperimentConfig]) -> bool:
    """By their snapshots as they are read today: an earlier version wrote none of the keys that it did not know."""
    stored = [snapshot_sha256(config_from_snapshot(require_snapshot(one))) for one in experiments]
    return stored == [snapshot_sha256(one) for one in configs]
