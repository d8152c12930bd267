"""Refuses calls for an experiment whose narratives are with a provider already."""

from __future__ import annotations

from narrun_async.batching.states import OPEN
from narrun_async.errors import BatchesOpenError
from narrun_async.models import ExperimentId
from narrun_async.ports import BatchStore


async def refuse_open_batches(store: BatchStore, experiment_id: ExperimentId) -> None:
    """:raises BatchesOpenError: calling for this experiment now would pay for narratives twice"""
    batches = [one for one in await store.list_batches(experiment_id) if one.state in OPEN]
    if batches:
        raise BatchesOpenError(
            experiment_id,
            numbers=[one.number for one in batches],
            n_requests=sum(one.n_requests for one in batches),
        )
