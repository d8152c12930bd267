"""What a call is made of, and one item on its way through its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from narrun_async.models import AnswerFormat, Outcome, WorkItem
from narrun_async.prompting import Change, RequestTemplate
from narrun_async.retrying import CallFailure, RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatChoice:
    """`response_format: auto`, before an endpoint has shown what it obeys."""

    templates: Mapping[AnswerFormat, RequestTemplate] = field(repr=False)
    #: questions that show it, the bodies of each in the order in which they are tried; `off` is a plain one
    probes: Mapping[AnswerFormat, tuple[bytes, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpec:
    """What a call is made of; plain and picklable, so that a caller can be built in any process."""

    template: RequestTemplate = field(repr=False)
    retry: RetryPolicy
    attempt_deadline_s: float
    #: an answer that cannot be used is asked for once more, with something changed
    second_try: bool = False
    #: what is to be decided before `template` may be sent; None: nothing
    choice: FormatChoice | None = None

    def decided(self, answer_format: AnswerFormat) -> CallSpec:
        """The same with nothing left open."""
        assert self.choice is not None
        return replace(self, template=self.choice.templates[answer_format], choice=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondTry:
    """A narrative that is asked about once more."""

    #: what its first answer came to; the call is in the ledger
    first: Outcome
    change: Change


@dataclass(slots=True, kw_only=True)
class Flight:
    """One item under way in one pass."""

    item: WorkItem
    is_last_pass: bool
    #: failed attempts that count against the item in this pass
    charged: int = 0
    #: refusals for overload in a row
    overloads: int = 0
    #: the last failed attempt counted against the item
    was_charged: bool = False
    #: failed in flight while the breaker opened; goes alone next time
    is_suspect: bool = False
    #: the last attempt, alone in flight, took the endpoint down
    crashed_endpoint: bool = False
    second_try: SecondTry | None = None
    #: with twice the token limit the answer does not come within the deadline
    outlasts_deadline: bool = False


class AttemptFailed(Exception):  # noqa: N818 - the signal that the retry loop turns on, not an error
    """One attempt of a flight did not decide it."""

    def __init__(
        self,
        failure: CallFailure,
        *,
        started_at: datetime,
        started: float,
        duration_s: float,
        in_flight: int,
        second_try: SecondTry | None = None,
    ) -> None:
        super().__init__(failure.category)
        self.failure = failure
        #: UTC
        self.started_at = started_at
        #: monotonic seconds
        self.started = started
        self.duration_s = duration_s
        #: calls on the wire when this one began, itself included
        self.in_flight = in_flight
        #: it brought an answer that cannot be used, and this is what comes next; nobody is to blame
        self.second_try = second_try
        #: it is in the ledger, and who pays is decided
        self.is_settled = False
