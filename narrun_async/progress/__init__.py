"""What people see of a run while it goes on."""

from narrun_async.progress.tally import Progress, ProgressSnapshot

__all__ = ["Progress", "ProgressSnapshot"]
