"""What the tests with desktop programs share: LibreOffice as a process, found or asked for, never skipped."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Resave = Callable[..., Path]


def find_program(*names: str, package: str) -> str:
    """The path of a program.

    :raises pytest.fail.Exception: it is not installed; a test that did not run proves nothing
    """
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"{names[0]} is not installed; on Debian: apt-get install {package} (bin/install-test-tools does it)")


@pytest.fixture
def resave(tmp_path: Path) -> Resave:
    """Opens a file in LibreOffice and saves it in a format (xlsx, ods, pdf), as a person would."""
    program = find_program("soffice", "libreoffice", package="libreoffice-calc")

    def save(path: Path, kind: str = "xlsx") -> Path:
        out = tmp_path / f"saved-as-{kind}"
        profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
        command = [program, profile, "--headless", "--convert-to", kind, "--outdir", str(out), str(path)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
        saved = out / f"{path.stem}.{kind}"
        assert saved.exists(), finished.stderr
        return saved

    return save
