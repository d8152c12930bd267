"""Plans and makes the repair of ids that R wrote as numbers: `1e+05` for 100000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.errors import BadInputError
from narrun_async.models import (
    ExperimentId,
    IdLeft,
    IdObstacle,
    IdPlan,
    IdRepair,
    IdRow,
    read_odd_id,
)
from narrun_async.ports import LegacyStore


def plan_repairs(rows: Sequence[IdRow]) -> IdPlan:
    """What can be repaired and what cannot, and why. Pure.

    An incident stays whole: its narratives are repaired together or not at all, and a result goes where its narrative
    goes. A result without a narrative is repaired by itself.

    :param rows: as `LegacyStore.list_rows_of_odd_ids` gives them
    """
    narratives = {row.key for row in rows if row.is_narrative}
    results = {(row.experiment_id, *row.key) for row in rows if not row.is_narrative}
    meanings = _meanings(rows)
    #: odd ids of incidents that stay as they are, because their id is another narrative's
    staying = {written for written, kind in narratives if (meanings.get(written), kind) in narratives}

    def judge(row: IdRow) -> IdRepair | IdLeft:
        stands_for = meanings[row.incident_id]
        if stands_for is None:
            return IdLeft(row=row, stands_for=None, obstacle=IdObstacle.UNKNOWN)
        obstacle = None
        if row.is_narrative:
            obstacle = IdObstacle.NARRATIVE_TAKEN if row.incident_id in staying else None
        elif row.incident_id in staying and row.key in narratives:
            obstacle = IdObstacle.FOLLOWS_NARRATIVE
        elif (row.experiment_id, stands_for, row.narrative_type) in results:
            obstacle = IdObstacle.RESULT_TAKEN
        if obstacle is not None:
            return IdLeft(row=row, stands_for=stands_for, obstacle=obstacle)
        return IdRepair(row=row, stands_for=stands_for)

    judged = [judge(row) for row in rows if row.incident_id in meanings]
    return IdPlan(
        repairs=[one for one in judged if isinstance(one, IdRepair)],
        left=[one for one in judged if isinstance(one, IdLeft)],
    )


def _meanings(rows: Sequence[IdRow]) -> Mapping[str, str | None]:
    """Odd id → what it stands for; None: nobody can know."""
    found = (read_odd_id(row.incident_id) for row in rows)
    return {odd.written: odd.stands_for for odd in found if odd is not None}


def count_strays(rows: Sequence[IdRow], plan: IdPlan, experiment_id: ExperimentId) -> int:
    """Results of an experiment that have no narrative now, and would have one after the repair. Pure."""
    repaired = {(repair.row.is_narrative, repair.row.row_id): repair.stands_for for repair in plan.repairs}

    def key_afterwards(row: IdRow) -> tuple[str, str | None]:
        return repaired.get((row.is_narrative, row.row_id), row.incident_id), row.narrative_type

    before = {row.key for row in rows if row.is_narrative}
    afterwards = {key_afterwards(row) for row in rows if row.is_narrative}
    return sum(
        row.key not in before and key_afterwards(row) in afterwards
        for row in rows
        if not row.is_narrative and row.experiment_id == experiment_id
    )


async def refuse_strays(store: LegacyStore, experiment_id: ExperimentId) -> None:
    """:raises BadInputError: results of the experiment lost their narratives over an id, and could find them again"""
    rows = await store.list_rows_of_odd_ids()
    n_strays = count_strays(rows, plan_repairs(rows), experiment_id)
    if n_strays:
        raise BadInputError(
            f"experiment {experiment_id}: over an id that R wrote as a number (1e+05 for 100000), {n_strays} of its"
            " results do not find their narratives, which would be asked and paid for again",
            advice="`narrun migrate --fix-ids` repairs the ids, after a backup; nothing was changed",
        )


async def find_repairs(store: LegacyStore) -> IdPlan:
    """What repairing the ids of a database would do."""
    return plan_repairs(await store.list_rows_of_odd_ids())
