"""The command line: reads flags and environment, calls `app`, chooses the exit code; no logic of its own."""

from narrun_async.cli.program import main

__all__ = ["main"]
