"""Every failure that a person is told about, and the exit code it ends with.

    NarrunError
    ├── UsageError                    2   flags or environment contradict each other
    │   └── UnknownExperimentError        no experiment, or more than one, answers to that id
    ├── BadInputError                65   a workbook, table or answer file that cannot be taken as it is
    ├── StorageError                 74   the database cannot be read or written
    ├── TemporaryError               75   try again later, nothing is lost
    │   ├── LockHeldError                 another process works on this database
    │   ├── WaitedTooLongError            the endpoint stayed unwell for longer than --max-wait
    │   ├── BudgetSpentError              --max-tokens-total or --max-cost is reached
    │   ├── ServingChangedError           another model answers, and --on-model-change is `stop`
    │   ├── BatchesOpenError              narratives are with the provider as batches
    │   └── BatchChangedError             another process has gone on with a batch
    └── ConfigurationError           78   a setting, a credential or a model name is wrong
        ├── MissingPackageError           an optional package is not installed
        ├── FatalEndpointError            the endpoint refuses this configuration
        └── RepeatedFailureError          narrative after narrative fails in the same way

    RunStopping                           not a failure: a wait was cut short because the run drains

Exceptions carry fields; their sentence is built in one place, from those fields, and never holds
narrative text, prompts, answers or keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the process tells its caller (design §6, after sysexits.h)."""

    COMPLETED = 0
    COMPLETED_WITH_ERRORS = 1
    USAGE = 2
    BAD_DATA = 65
    STORAGE = 74
    TEMPORARY = 75
    CONFIGURATION = 78
    SIGINT = 130
    SIGTERM = 143


class NarrunError(Exception):
    """Base of the tree: one sentence for a person, one exit code for a script."""

    exit_code: ExitCode = ExitCode.STORAGE

    def __init__(self, problem: str, *, advice: str = "") -> None:
        super().__init__(problem)
        #: what is wrong, naming file, sheet, row, column or key
        self.problem = problem
        #: what to do about it; may be empty
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem} — {self.advice}" if self.advice else self.problem


class UsageError(NarrunError):
    """Flags or environment variables that contradict each other or make no sense."""

    exit_code = ExitCode.USAGE


class UnknownExperimentError(UsageError):
    """An id, prefix or `latest` that does not lead to exactly one experiment."""

    def __init__(self, wanted: str, *, candidates: Sequence[str] = ()) -> None:
        self.wanted = wanted
        self.candidates = tuple(candidates)
        if candidates:
            listed = ", ".join(candidates)
            super().__init__(f"{wanted!r} fits more than one experiment: {listed}", advice="give more of the id")
        else:
            super().__init__(f"no experiment answers to {wanted!r}", advice="`narrun list` shows the ids")


class BadInputError(NarrunError):
    """A file that cannot be taken as it is; nothing of it was stored."""

    exit_code = ExitCode.BAD_DATA


class StorageError(NarrunError):
    """The database, its directory or its disk refuses."""

    exit_code = ExitCode.STORAGE

    def __init__(
        self,
        problem: str,
        *,
        path: Path | None = None,
        advice: str = "",
        may_pass: bool = False,
        is_disk_failure: bool = False,
    ) -> None:
        self.path = path
        #: worth trying again by itself: a full disk may be freed
        self.may_pass = may_pass
        #: the disk failed in the middle of something, which may or may not have been stored
        self.is_disk_failure = is_disk_failure
        super().__init__(f"{path}: {problem}" if path else problem, advice=advice)


class TemporaryError(NarrunError):
    """Nothing is lost; the same command works later."""

    exit_code = ExitCode.TEMPORARY


class LockHeldError(TemporaryError):
    """Another process holds the database for writing."""

    def __init__(self, path: Path, *, holder: str) -> None:
        self.path = path
        self.holder = holder
        super().__init__(
            f"{path} is in use by {holder}",
            advice="wait for it or stop it, then run the same command again",
        )


class WaitedTooLongError(TemporaryError):
    """The endpoint was unreachable, failing or overloaded for longer than `--max-wait`."""

    def __init__(self, *, waited_s: float, max_wait_s: float, last_problem: str) -> None:
        self.waited_s = waited_s
        self.max_wait_s = max_wait_s
        self.last_problem = last_problem
        super().__init__(
            f"the endpoint has not answered for {waited_s:.0f} s (--max-wait {max_wait_s:.0f} s); last: {last_problem}",
            advice="what is saved stays saved; resume when the endpoint is back",
        )


class BudgetSpentError(TemporaryError):
    """What the user allowed for this experiment is spent."""

    def __init__(self, *, what: str, limit: float, spent: float) -> None:
        self.what = what
        self.limit = limit
        self.spent = spent
        super().__init__(
            f"the budget has no room for another call: {spent:,.10g} of {limit:,.10g} {what} are spent or in flight,"
            " earlier runs included",
            advice="what is saved stays saved; resume with a higher limit",
        )


class ServingChangedError(TemporaryError):
    """The answers come from another model or server than before, and the user asked to stop there."""

    def __init__(self, *, before: str, now: str) -> None:
        self.before = before
        self.now = now
        super().__init__(
            f"the endpoint changed: {before} answered so far, {now} answers now; nothing of the new one was stored",
            advice="bring the old one back and resume, or resume with `--on-model-change warn` to go on with both",
        )


class BatchesOpenError(TemporaryError):
    """Narratives of the experiment are in batches that are not closed; calling for them now would pay twice."""

    def __init__(self, experiment_id: str, *, numbers: Sequence[int], n_requests: int) -> None:
        self.experiment_id = experiment_id
        self.numbers = tuple(numbers)
        self.n_requests = n_requests
        which = ", ".join(map(str, self.numbers))
        batches, are = ("batch", "is") if len(self.numbers) == 1 else ("batches", "are")
        super().__init__(
            f"experiment {experiment_id} has {n_requests:,} narratives in {batches} {which}, which {are} not closed",
            advice="a run would pay for them twice: `narrun batch poll` and `narrun batch collect` store the answers, "
            "`narrun batch cancel` gives the narratives back",
        )


class BatchChangedError(TemporaryError):
    """A batch is not in the state in which it was found."""

    def __init__(self, number: int, *, was: str) -> None:
        self.number = number
        self.was = was
        super().__init__(
            f"batch {number} is not {was} any more: another process has gone on with it",
            advice="`narrun batch list` shows where it stands; run the same command again",
        )


class ConfigurationError(NarrunError):
    """A setting, a credential or a file of the configuration is wrong."""

    exit_code = ExitCode.CONFIGURATION


class MissingPackageError(ConfigurationError):
    """What was asked for needs a package that comes with an extra of this program."""

    def __init__(self, *, wanted: str, package: str) -> None:
        self.wanted = wanted
        self.package = package
        super().__init__(f"{wanted} needs {package}, which is not installed", advice="`make analysis` installs it")


class FatalEndpointError(ConfigurationError):
    """The endpoint refuses the whole configuration: key, model, TLS, or an address that is not allowed."""


class RepeatedFailureError(ConfigurationError):
    """Distinct narratives, one after the other, fail in the same way: the setting is wrong, not the texts."""

    def __init__(self, *, count: int, category: str, message: str) -> None:
        self.count = count
        self.category = category
        self.message = message
        super().__init__(
            f"{count} narratives in a row ended with the same error ({category}: {message})",
            advice="this looks like a setting, not like the texts; correct it, then resume",
        )


class RunStopping(Exception):  # noqa: N818 - not an error: a wait ends early because the run drains
    """Raised by a wait when the run is stopping; whoever waited gives its item back."""
