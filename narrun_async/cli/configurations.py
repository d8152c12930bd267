"""`narrun migrate-config`: configurations of the predecessor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.cli.streams import print_line


def register(app: typer.Typer) -> None:
    app.command("migrate-config")(migrate_config)


def migrate_config(
    old: Annotated[Path, typer.Argument(help="A configuration, such as one of the R pipeline.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write into this file. [default: standard output]", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    prompt_dir: Annotated[
        Path | None,
        typer.Option(
            "--prompt-dir",
            help="Put the prompts into files here, named by what they hold, so that configurations share them.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the new form of a configuration; the old file is never touched.

    The new form is read back and compared with the old one before it is written; what differs, and what is left out, is
    said on standard error and in comments. Exits with 78 where the old file says something that only you can put right.
    """
    from narrun_async.app.migrating import migrate_config as migrate

    form = migrate(old, os.environ, output=output, prompt_dir=prompt_dir, overwrite=force)
    if output is None:
        typer.echo(form.text, nl=False)
    for line in form.remarks:
        print_line(line, sys.stderr)
    for path in [*form.prompts, *([output] if output else [])]:
        print_line(f"written: {path}", sys.stderr)
