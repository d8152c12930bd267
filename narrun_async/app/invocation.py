"""How this program is called from here, for the commands that it proposes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from narrun_async.app.planning import DEFAULT_DATABASE


def database_option(database: Path) -> str:
    """What has to be said to get the same database again; nothing where it is the usual one."""
    return "" if database == DEFAULT_DATABASE else f" --db {shlex.quote(str(database))}"


def this_program() -> str:
    """With the Python that runs it, for another one may not have it: `.venv/bin/python -m narrun_async`."""
    python, here = Path(sys.executable), Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return f"{shlex.quote(str(shown))} -m narrun_async"
