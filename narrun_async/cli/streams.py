"""Owns standard output and standard error of a run: whoever reads them may go away, and the run goes on.

A stream that is gone (closed terminal, ended pager, full disk behind a redirection) leads to nowhere from then on, so
that neither a later line nor the flush at exit fails again. What matters is in the database and in the log files.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import NoReturn, TextIO

import typer

_STREAM_IS_GONE = (OSError, ValueError)


def open_missing_streams() -> None:
    """Put /dev/null where a standard stream was closed before we started.

    Otherwise the next file that is opened, such as the database, would get the number of standard error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def outlive_terminal() -> None:
    """Ignore SIGHUP: closing the terminal is no request to stop."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def end_with(work: Coroutine[None, None, int]) -> NoReturn:
    """Do the work, and exit with the code that it comes to."""
    import anyio

    async def to_its_end() -> int:
        return int(await work)

    try:
        raise typer.Exit(anyio.run(to_its_end))
    finally:
        flush_streams()


def tell(line: str) -> None:
    """On standard error: what is going on."""
    print_line(line, sys.stderr)


def say(line: str) -> None:
    """On standard output: what was asked for."""
    print_line(line, sys.stdout)


def print_line(line: str, stream: TextIO) -> None:
    """Print a line if anybody can still read it; characters that the stream does not know are escaped. Never fails."""
    encoding = stream.encoding or "ascii"
    try:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except _STREAM_IS_GONE:
        _lead_to_nowhere(stream)


def flush_streams() -> None:
    """Get rid of what the streams still hold, so that the interpreter does not fail to at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _STREAM_IS_GONE:
            _lead_to_nowhere(stream)


def _lead_to_nowhere(stream: TextIO) -> None:
    with suppress(*_STREAM_IS_GONE):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
