"""Owns whether the run goes on: a first request to stop drains it, a second one ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from narrun_async.errors import ExitCode, NarrunError, RunStopping
from narrun_async.logs import RUN_LOG


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal:
    """A person or the system asked the process to stop."""

    number: signal.Signals

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.SIGTERM if self.number is signal.SIGTERM else ExitCode.SIGINT

    def __str__(self) -> str:
        return f"stopped by {self.number.name}"


StopReason = StopSignal | NarrunError
Result = TypeVar("Result")


class RunControl:
    """The one place that is asked "shall I go on?" by every stage."""

    def __init__(self) -> None:
        #: why the run stops; the first reason given stays
        self.reason: StopReason | None = None
        self._stopping = anyio.Event()
        self._leaving = anyio.Event()
        self._on_stop: list[Callable[[], None]] = []

    @property
    def is_stopping(self) -> bool:
        return self.reason is not None

    @property
    def is_leaving(self) -> bool:
        return self._leaving.is_set()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call this, once, when the run begins to stop."""
        self._on_stop.append(callback)

    def stop(self, reason: StopReason) -> None:
        """Start nothing new; let what is in flight come to its end. Safe to repeat."""
        if self.reason is None:
            RUN_LOG.info("stopping: %s", reason)
            self.reason = reason
            self._stopping.set()
            for callback in list(self._on_stop):
                callback()

    def leave(self) -> None:
        """Abandon what is in flight, too. Safe to repeat."""
        self._leaving.set()

    async def abandon_on_stop(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do something that is not worth waiting for once the run stops; it is cancelled then.

        :raises RunStopping: the run stops, or stopped before
        """
        if self.is_stopping:
            raise RunStopping
        with anyio.CancelScope() as scope:
            self._on_stop.append(scope.cancel)
            try:
                return await work()
            finally:
                self._on_stop.remove(scope.cancel)
        raise RunStopping

    async def wait_stopping(self) -> None:
        await self._stopping.wait()

    async def wait_leaving(self) -> None:
        await self._leaving.wait()

    async def sleep(self, seconds: float) -> None:
        """A pause that ends early when the run stops.

        :raises RunStopping: it did
        """
        with anyio.move_on_after(seconds):
            await self._stopping.wait()
        if self.is_stopping:
            raise RunStopping
