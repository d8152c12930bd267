"""What a failed call about files and batches means for the command that made it."""

from __future__ import annotations

from narrun_async.errors import ConfigurationError, FatalEndpointError, NarrunError, TemporaryError
from narrun_async.retrying import CallFailure, FailureClass

#: what a provider answers that has no such thing
UNKNOWN_THERE = frozenset({404, 405, 410, 501})


def problem_of(failure: CallFailure, *, doing: str) -> NarrunError:
    """The failure as one sentence and an exit code.

    :param doing: what was tried, as in "batch 3 cannot be created"
    """
    said = f"{doing}: {failure.message}" + (f"; it says: {failure.quoted}" if failure.quoted else "")
    match failure.failure_class:
        case FailureClass.FATAL:
            return FatalEndpointError(said, advice="see to the key, the account or the URL, then run it again")
        case FailureClass.PERMANENT | FailureClass.ANSWER:
            return ConfigurationError(
                said, advice="the provider does not take this; its Batch API may know other rules"
            )
        case FailureClass.OVERLOAD | FailureClass.TRANSIENT | FailureClass.UNREACHABLE:
            return TemporaryError(said, advice="nothing is lost; run the same command again later")
