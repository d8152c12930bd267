"""Owns an asyncio event loop with virtual time: seeded order, counted steps, and a death at any one of them.

One step is one callback. Which of those that are ready comes next is drawn from a seed, so that one seed is one
schedule; when none is ready, time jumps to the next timer. Nothing outside takes part: whoever starts a thread or a
process or opens a socket gets `OutsideWorldError`, and so does a run that waits for something that cannot come.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import random
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any, ClassVar, TypeVar

Result = TypeVar("Result")

#: what a step takes: little enough to change no wait, enough that a loop that spins does not stand still in time
STEP_S = 1e-6
#: ten days: longer than anything waits
MOST_S = 864_000.0
#: times that a dead coroutine is closed, at most; each `await` in a `finally` of its swallows one
_CLOSINGS = 100

#: audit events of the interpreter that leave the virtual world
_FORBIDDEN = {
    "socket.__new__": "a real socket was opened",
    "socket.connect": "a real socket was connected",
    "socket.getaddrinfo": "a real name was looked up",
    "subprocess.Popen": "a real process was started",
}


class Crash(BaseException):
    """The process died at this step; nothing of it runs any more."""

    def __init__(self, step: int) -> None:
        super().__init__(f"died at step {step}")
        self.step = step


class OutsideWorldError(RuntimeError):
    """Something under the virtual loop reached for a real thread, socket or process."""


class VirtualLoop(asyncio.BaseEventLoop):
    """One life of one process; `run` may be called once.

    :param seed: decides in which order callbacks that are ready at the same time run
    :param start_s: the first reading of the clock
    :param most_s: a run that lasts longer is stuck
    :param crash_at: die before this step, from 1
    """

    #: the one that runs now
    _running: ClassVar[VirtualLoop | None] = None

    def __init__(self, seed: int, *, start_s: float = 0.0, most_s: float = MOST_S, crash_at: int | None = None) -> None:
        super().__init__()
        self.seed = seed
        self._order = random.Random(seed)
        self._now_s = start_s
        self._until_s = start_s + most_s
        self._crash_at = crash_at
        self._is_dead = False
        self._trespass: OutsideWorldError | None = None
        self._handlers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        # `asyncio.all_tasks` looks through those of every loop there was.
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.set_task_factory(self._make_task)
        #: steps taken so far
        self.steps = 0
        #: what was handed to the loop's exception handler
        self.complaints: list[dict[str, Any]] = []

    # --- running ---

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Run to the end and leave nothing behind.

        :raises Crash: the step to die at was reached; nothing more runs, no `finally`, no rollback
        :raises OutsideWorldError: see the module
        :raises AssertionError: tasks were left behind, or errors that nobody looked at
        """
        assert VirtualLoop._running is None, "one virtual loop at a time"
        VirtualLoop._running = self
        # The interpreter tells of threads only from Python 3.12 on.
        start, threading.Thread.start = threading.Thread.start, self._refuse_thread  # type: ignore[method-assign]
        try:
            result = self.run_until_complete(main)
            left = [repr(task) for task in self.unfinished]
            assert not left, f"tasks were left behind: {left}"
            assert not self.complaints, self.complaints
            return result
        finally:
            self._is_dead = True
            VirtualLoop._running = None
            threading.Thread.start = start  # type: ignore[method-assign]
            self._bury()
            self.close()

    def _run_once(self) -> None:
        if self._trespass is not None:
            raise self._trespass
        while (timer := self._next_timer()) is not None and timer._when <= self._now_s:
            self._take_timer()
            self._ready.append(timer)
        if not self._ready:
            if timer is None:
                raise OutsideWorldError(
                    "nothing is ready and no timer is set: the run waits for something outside of the virtual loop, "
                    "or for itself"
                )
            self._now_s = timer._when
            if self._now_s > self._until_s:
                raise OutsideWorldError("the run goes on and on: something in it waits for what never comes")
            return
        self.steps += 1
        if self.steps == self._crash_at:
            raise Crash(self.steps)
        self._now_s += STEP_S
        self._ready.rotate(-self._order.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if not handle._cancelled:
            handle._run()

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        self._tasks.add(task)
        return task

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done()]

    def _next_timer(self) -> asyncio.TimerHandle | None:
        while self._scheduled and self._scheduled[0]._cancelled:
            self._take_timer()
        return self._scheduled[0] if self._scheduled else None

    def _take_timer(self) -> None:
        timer = heapq.heappop(self._scheduled)
        timer._scheduled = False
        if timer._cancelled:
            self._timer_cancelled_count -= 1

    def time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        """The process stood still for so long, as under SIGSTOP or in a sleeping machine."""
        self._now_s += seconds

    @property
    def n_timers(self) -> int:
        """Timers that are set, cancelled ones that are not yet thrown away included."""
        return len(self._scheduled)

    # --- the end ---

    def _bury(self) -> None:
        """Close what a dead process leaves in memory; nothing that this sets off is run."""
        told, sys.unraisablehook = sys.unraisablehook, lambda _: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for task in self.unfinished:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        sys.unraisablehook = told

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        if not self._is_dead:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._is_dead:
            self.complaints.append(context)

    # --- signals ---

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._handlers[sig] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._handlers.pop(sig, None) is not None

    def deliver(self, number: signal.Signals) -> bool:
        """Send the process a signal. False: nobody listens for it, so a real one would have killed the process."""
        if number not in self._handlers:
            return False
        callback, args = self._handlers[number]
        self.call_soon(callback, *args)
        return True

    # --- the outside world ---

    def trespass(self, what: str) -> OutsideWorldError:
        self._trespass = self._trespass or OutsideWorldError(f"under the virtual loop {what}")
        return self._trespass

    def _refuse_thread(self) -> None:
        raise self.trespass("a real thread was started")

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        # The loop's own thread calls it for asynchronous generators that are thrown away.
        if VirtualLoop._running is not self:
            raise self.trespass("another thread came in")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        raise self.trespass("work was given to a real thread")

    def _add_reader(self, *args: Any) -> None:
        raise self.trespass("a real file descriptor was watched")

    add_reader = add_writer = _add_writer = _add_reader

    async def _refuse(self, *args: Any, **options: Any) -> Any:
        raise self.trespass("a real socket or process was used")

    sock_connect = sock_recv = sock_sendall = sock_accept = sock_recv_into = _refuse
    create_connection = create_server = create_datagram_endpoint = create_unix_connection = _refuse
    getaddrinfo = getnameinfo = subprocess_exec = subprocess_shell = _refuse

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, events: Sequence[object]) -> None:
        pass


def _keep_inside(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN and VirtualLoop._running is not None:
        raise VirtualLoop._running.trespass(_FORBIDDEN[event])


# An audit hook cannot be taken away again; without a loop that runs it costs one comparison an event.
sys.addaudithook(_keep_inside)


def _close(coroutine: Any) -> None:
    """Close a coroutine, and those that it was to run and had not begun."""
    if not isinstance(coroutine, CoroutineType):
        return
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED and coroutine.cr_frame is not None:
        for local in [*coroutine.cr_frame.f_locals.values()]:
            _close(local)
    for _ in range(_CLOSINGS):
        try:
            coroutine.close()
        except BaseException:
            continue
        return
