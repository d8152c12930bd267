"""Runs the program with a wall clock that is wrong: `python wrong_clock.py SHIFT run config.yaml`.

SHIFT is `-3600@0.2`: an hour back, once a run has worked for 0.2 s; or `=1792889999.8`: when the run begins, the
clock shows so many seconds after 1970. The monotonic clock stays what it is, as it does in the kernel.
"""

from __future__ import annotations

import datetime as standard
import sys
import time
from typing import Any

from narrun_async import clock
from narrun_async.cli import main
from narrun_async.runner import Runner


class WrongClock:
    """Right until the run begins."""

    def __init__(self, shift: str) -> None:
        self._shift = shift
        self._began_s: float | None = None

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def time(self) -> float:
        worked_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        if self._shift.startswith("="):
            return float(self._shift[1:]) + worked_s
        seconds, _, after_s = self._shift.partition("@")
        return time.time() + (float(seconds) if worked_s > float(after_s) else 0.0)


def main_with(wrong: WrongClock) -> None:
    class WrongDatetime(standard.datetime):
        @classmethod
        def now(cls, tz: standard.tzinfo | None = None) -> Any:
            return standard.datetime.fromtimestamp(wrong.time(), tz)

    right_run = Runner.run

    async def run(self: Runner, *args: Any) -> Any:
        wrong.begin()
        return await right_run(self, *args)

    Runner.run = run  # type: ignore[method-assign]  # so that the clock goes wrong in mid-run
    clock.datetime = WrongDatetime  # type: ignore[misc,attr-defined]  # the one module that asks what time it is
    main()


if __name__ == "__main__":
    main_with(WrongClock(sys.argv.pop(1)))
