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
    record_heads: Path | None,
    on_ready: Callable[[str], None],
    faults: Sequence[str],
    always: Sequence[str],
    response_formats: Sequence[str],
    required_query: Sequence[str],
    knobs: Mapping[str, object],
    batch_knobs: Sequence[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM.

    :raises UsageError: a knob or fault that makes no sense
    :raises TemporaryError: the port is taken
    """
    by_flag = {
        "fault_rates": parse_fault_rates(faults),
        "always": dict(_split(text, "TEXT=FAULT") for text in always),
        "response_formats": dict(_split(text, "TYPE=HANDLING") for text in response_formats),
        "required_query": dict(_split(text, "NAME=VALUE") for text in required_query),
    }
    batches = parse_batch_knobs(batch_knobs)
    try:
        behaviour = Behaviour().changed({**knobs, **by_flag})
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        paths = {"record_path": record, "heads_path": record_heads}
        serve_it = partial(serve, behaviour, host=host, port=port, on_ready=on_ready, batch_knobs=batches)
        anyio.run(partial(serve_it, **paths))
    except OSError as error:
        raise TemporaryError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _split(text: str, form: str) -> tuple[str, str]:
    """:raises UsageError: there is no `=` in it, or nothing before"""
    before, separator, after = text.rpartition("=")
    if not (before and separator):
        raise UsageError(f"{text!r} is not {form}")
    return before, after
