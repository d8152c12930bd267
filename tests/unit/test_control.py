"""Promises of the run's control: the first reason stays, everybody who waits wakes, callbacks are called once."""

from __future__ import annotations

import asyncio
import signal

import pytest

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode, FatalEndpointError, RunStopping


async def test_the_first_reason_to_stop_stays() -> None:
    control, calls = RunControl(), list[int]()
    control.on_stop(lambda: calls.append(1))
    assert not control.is_stopping
    first = FatalEndpointError("made up")
    control.stop(first)
    control.stop(StopSignal(number=signal.SIGINT))
    assert (control.reason, control.is_stopping, calls) == (first, True, [1])


async def test_stopping_wakes_whoever_sleeps_and_lets_nobody_sleep() -> None:
    control = RunControl()
    sleeping = asyncio.create_task(control.sleep(3600))
    waiting = asyncio.create_task(control.wait_stopping())
    await asyncio.sleep(0)
    control.stop(StopSignal(number=signal.SIGINT))
    with pytest.raises(RunStopping):
        await sleeping
    await waiting
    for seconds in (0.0, 3600.0):
        with pytest.raises(RunStopping):
            await control.sleep(seconds)


async def test_a_sleep_comes_to_its_end_while_the_run_goes_on() -> None:
    await RunControl().sleep(0.0)


async def test_stopping_is_not_leaving() -> None:
    control = RunControl()
    leaving = asyncio.create_task(control.wait_leaving())
    control.stop(StopSignal(number=signal.SIGTERM))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not leaving.done()
    control.leave()
    control.leave()
    await leaving


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, ExitCode.SIGINT), (signal.SIGTERM, ExitCode.SIGTERM)]
)
def test_a_signal_has_its_exit_code_and_its_name(number: signal.Signals, exit_code: ExitCode) -> None:
    stopped = StopSignal(number=number)
    assert (stopped.exit_code, str(stopped)) == (exit_code, f"stopped by {number.name}")
