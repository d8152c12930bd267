"""Owns the rows B of the fault matrix: batches at a provider."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="B01",
        fault="a kill at any step of a batch: export, upload, creation, poll, collection, cancellation",
        injected=(
            "a fork of the program sends itself SIGKILL at a named boundary of a function or a statement; the provider "
            "counts batches by their token, and requests"
        ),
        required=(
            "no batch is created twice, no request is in two batches, every narrative has one row, equal to that of a "
            "run; no file with narratives is left; verify is clean after the kill and in the end"
        ),
    ),
    FaultRow(
        id="B02",
        fault="a batch is killed at random moments, again and again",
        injected=(
            "SIGKILL from outside, whatever command comes next; strace sends it at the Nth system call of a submission;"
            " answers to uploads and creations are lost, the list of batches lags behind"
        ),
        required="the same",
    ),
    FaultRow(
        id="B03",
        fault="the provider's answer to a creation is lost, or it cannot say what it has",
        injected="a Batch API that resets the connection after the work, lists late, not at all, or without metadata",
        required="one batch; where only a person can tell, nothing is sent without one",
    ),
)
