"""`narrun simulate`: a simulated endpoint from flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio

from narrun_async.errors import TemporaryError, UsageError
from narrun_async.simulation.batch_behaviour import parse_batch_knobs
from narrun_async.simulation.behaviour import Behaviour, parse_fault_rates
from narrun_async.simulation.endpoint import serve


def serve_simulation(
    *,
    host: str,
    port: int,
    record: Path | None,
    on_ready: Callable[[str], None],
    faults: Sequence[str],
    always: Sequence[str],
    knobs: Mapping[str, object],
    batch_knobs: Sequence[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM.

    :raises UsageError: a knob or fault that makes no sense
    :raises TemporaryError: the port is taken
    """
    rates = parse_fault_rates(faults)
    batches = parse_batch_knobs(batch_knobs)
    try:
        behaviour = Behaviour().changed(
            {**knobs, "fault_rates": rates, "always": dict(_split_always(text) for text in always)}
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        serve_it = partial(serve, behaviour, host=host, port=port, record_path=record, on_ready=on_ready)
        anyio.run(partial(serve_it, batch_knobs=batches))
    except OSError as error:
        raise TemporaryError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _split_always(text: str) -> tuple[str, str]:
    wanted, separator, fault = text.rpartition("=")
    if not (wanted and separator):
        raise UsageError(f"{text!r} is not TEXT=FAULT")
    return wanted, fault
