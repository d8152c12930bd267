"""Owns how long a run may go on without getting anywhere (`--max-wait`)."""

from __future__ import annotations

from collections.abc import Callable

from narrun_async.errors import WaitedTooLongError


class Patience:
    """Counts the time since the endpoint last took a narrative to an end; waiting longer than allowed ends the run.

    :param max_wait_s: seconds
    :param clock: monotonic seconds
    """

    def __init__(self, max_wait_s: float, *, clock: Callable[[], float]) -> None:
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._troubled_since: float | None = None
        self._downtime_s = 0.0

    def restore(self) -> None:
        """A narrative came to its end; whatever trouble there was is over."""
        if self._troubled_since is not None:
            self._downtime_s += self._clock() - self._troubled_since
            self._troubled_since = None

    def spend(self, last_problem: str, *, coming_wait_s: float = 0.0) -> None:
        """There is trouble, and `coming_wait_s` more seconds are about to be waited.

        :raises WaitedTooLongError: that would be longer than allowed
        """
        now = self._clock()
        if self._troubled_since is None:
            self._troubled_since = now
        waited_s = now - self._troubled_since
        if waited_s + coming_wait_s > self._max_wait_s:
            raise WaitedTooLongError(
                waited_s=waited_s + coming_wait_s, max_wait_s=self._max_wait_s, last_problem=last_problem
            )

    @property
    def downtime_s(self) -> float:
        """Seconds in which no narrative could be worked on, for a rate and an ETA that ignore them."""
        current_s = 0.0 if self._troubled_since is None else self._clock() - self._troubled_since
        return self._downtime_s + current_s
