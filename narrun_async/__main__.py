"""`python -m narrun_async` and the console script `narrun`: the same program."""

from narrun_async.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
