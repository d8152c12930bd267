"""Owns the suspicion that it is the setting, not the texts, when narrative after narrative fails in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from narrun_async.errors import RepeatedFailureError
from narrun_async.models import Detection, ErrorCategory, Outcome

#: distinct narratives refused in the same way, before anything has succeeded, that stop the run
REFUSALS_BEFORE_SUCCESS = 5
#: refusals that a wrong setting would also cause; a context overflow is always the text's
_SUSPECT_CATEGORIES = frozenset({ErrorCategory.BAD_REQUEST})


class ErrorGuard:
    """Holds refusals back until something has shown that the settings work, and counts identical errors in a row.

    :param is_proven: the experiment has successes of this very configuration already
    :param max_consecutive_errors: identical error categories in a row that stop a run
    """

    def __init__(self, *, is_proven: bool, max_consecutive_errors: int) -> None:
        self._is_proven = is_proven
        self._max_consecutive_errors = max_consecutive_errors
        self._held: list[Outcome] = []
        self._refusals: Counter[str] = Counter()
        self._streak_category: ErrorCategory | None = None
        self._streak = 0

    def admit(self, outcome: Outcome) -> Sequence[Outcome]:
        """The outcomes that may be stored now: none while this one is held back, earlier ones once they are freed.

        :raises RepeatedFailureError: the setting is to blame; nothing of what was held back is to be stored
        """
        verdict = outcome.verdict
        if isinstance(verdict, Detection):
            self._streak_category, self._streak = None, 0
            return self._release(outcome)
        if verdict.category in _SUSPECT_CATEGORIES and not self._is_proven:
            return self._hold(outcome, verdict.message)
        if not outcome.item.replaces_error:
            # Rows that are errors already may well fail in the same way again; a run that retries them must get past.
            self._count_streak(verdict.category, verdict.message)
        return self._release(outcome) if _was_answered(outcome) else (outcome,)

    def begin_again(self) -> None:
        """Another pass follows, which meets again what was held back."""
        self._held.clear()
        self._refusals.clear()

    def finish(self) -> None:
        """The remaining set is exhausted.

        :raises RepeatedFailureError: everything was refused, so nothing shows that the settings work
        """
        if self._held:
            message, _ = self._refusals.most_common(1)[0]
            raise RepeatedFailureError(count=len(self._held), category=ErrorCategory.BAD_REQUEST, message=message)

    def _release(self, outcome: Outcome) -> Sequence[Outcome]:
        self._is_proven = True
        if not self._held:
            return (outcome,)
        released = (*self._held, outcome)
        self._held.clear()
        return released

    def _hold(self, outcome: Outcome, message: str) -> Sequence[Outcome]:
        self._held.append(outcome)
        self._refusals[message] += 1
        if self._refusals[message] >= REFUSALS_BEFORE_SUCCESS:
            raise RepeatedFailureError(
                count=self._refusals[message], category=ErrorCategory.BAD_REQUEST, message=message
            )
        return ()

    def _count_streak(self, category: ErrorCategory, message: str) -> None:
        self._streak = self._streak + 1 if category is self._streak_category else 1
        self._streak_category = category
        if self._streak >= self._max_consecutive_errors:
            raise RepeatedFailureError(count=self._streak, category=category, message=message)


def _was_answered(outcome: Outcome) -> bool:
    """The endpoint took the request, whatever its answer is worth; nothing else shows that the settings work."""
    if outcome.raw_response is not None:
        return True  # of a first answer that stands: the call after it may have been refused
    return outcome.attempt is not None and outcome.attempt.http_status == 200
