"""What is installed is what was pinned, and installing or starting it runs nothing of its own."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-analysis.lock", "requirements-real.lock", "requirements-dev.lock")
#: of setuptools, which `venv` puts there on some Pythons and datasette asks for: it keeps `import distutils` working
OF_SETUPTOOLS = {"distutils-precedence.pth"}


def requirements(lock: str) -> dict[str, list[str]]:
    """Pinned requirement → its hashes."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {line.split(" --hash", 1)[0].strip(): re.findall(r"--hash=(\S+)", line) for line in lines}


def code_lines(text: str) -> list[str]:
    """The lines of a `.pth` that `site` executes (docs.python.org, `site`)."""
    return [line for line in text.splitlines() if line.startswith(("import ", "import\t"))]


@pytest.mark.fault("S10")
@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_with_hashes_and_names_no_place(lock: str, measured: Any) -> None:
    found = requirements(lock)
    assert len(found) > 20
    for requirement, hashes in found.items():
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+(\s*;.*)?$", requirement), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host|^-e ", text, re.MULTILINE)
    measured(f"{lock}: {len(found)} requirements, every one with sha256 hashes, no index host")


def locked_names() -> set[str]:
    names = [requirement.split("==")[0].split("[")[0] for lock in LOCKS for requirement in requirements(lock)]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


@pytest.mark.fault("S10")
def test_no_locked_distribution_ships_a_pth_that_runs_code(measured: Any) -> None:
    looked_at = set()
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in locked_names():
            continue
        looked_at.add(name)
        for file in distribution.files or ():
            if file.name.endswith(".pth") and file.name not in OF_SETUPTOOLS:
                assert not code_lines(file.read_text(encoding="utf-8")), f"{name} runs code by {file}"
    assert len(looked_at) > 20
    measured(f"0 of {len(looked_at)} installed locked distributions run code by a .pth")


@pytest.mark.fault("S10")
def test_every_pth_of_the_environment_is_accounted_for(measured: Any) -> None:
    files = sorted(Path(sysconfig.get_path("purelib")).glob("*.pth"))
    running = {path.name for path in files if code_lines(path.read_text(encoding="utf-8"))}
    assert running <= OF_SETUPTOOLS
    note = f"; {', '.join(sorted(running))} comes from setuptools" if running else ""
    measured(f"{len(files)} .pth files in the environment, {len(running)} run code{note}")


def test_the_search_for_code_in_a_pth_finds_some() -> None:
    assert code_lines("/srv/code\nimport os; os.getpid()\n#import x\nimportant\n") == ["import os; os.getpid()"]
    assert code_lines("import\tsys") == ["import\tsys"]


@pytest.mark.fault("S10")
def test_pip_refuses_a_distribution_that_is_not_the_one_that_was_pinned(tmp_path: Path, measured: Any) -> None:
    wheel = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made_up.py", "")
        info = "made_up-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"made_up.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()

    codes = {}
    for name, digest in (("right", right), ("wrong", "0" * 64)):
        lock = tmp_path / f"{name}.lock"
        lock.write_text(f"made-up==1.0 --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-index", "--find-links", str(tmp_path), "--require-hashes", "--no-cache-dir", "--dry-run"]
        finished = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True, timeout=60)
        codes[name] = finished.returncode
        if name == "wrong":
            assert "DO NOT MATCH THE HASHES" in finished.stderr
    assert codes["right"] == 0
    assert codes["wrong"] != 0
    measured("a wheel with another hash is refused, the pinned one is taken")
