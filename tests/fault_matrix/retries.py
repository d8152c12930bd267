"""Owns the rows R of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="R01",
        fault="retried errors fail again, or the retry is killed",
        injected=(
            "RETRY_ERRORS_ONLY with k refusals that come again, that come right, and with a kill after each commit"
        ),
        required="exactly one call an error row; a success never changes; an error row is replaced in place",
    ),
    FaultRow(
        id="R02",
        fault="the configuration was edited between two runs",
        injected="prompt, template, model, temperature, address changed in the file",
        required="the stored ones are sent, each difference is shown, exit 0, the stored hash holds",
    ),
    FaultRow(
        id="R03",
        fault="a resume of every status",
        injected="running, interrupted, failed, completed with and without error rows",
        required="what is incomplete is completed; what is complete: exit 0, `nothing to do`, 0 calls",
    ),
    FaultRow(
        id="R04",
        fault="an experiment of many lives",
        injected="twenty starts, each ended by SIGKILL, SIGINT or SIGTERM",
        required="total and row numbers as in one life, runtime the sum of all, logs only grow",
    ),
)
