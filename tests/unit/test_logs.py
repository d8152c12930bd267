"""The log files of an experiment."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from narrun_async.logs import ERROR_LOG, PERFORMANCE_LOG, RUN_LOG, make_private_directory, open_experiment_logs

LOGGERS = (RUN_LOG, ERROR_LOG, PERFORMANCE_LOG)
NAMES = ("run.log", "errors.log", "performance.log")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def stderr_of(program: str, *arguments: str) -> str:
    """In a process of its own: pytest attaches handlers to every logger."""
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    return ran.stderr


def test_each_logger_writes_its_own_file(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path / "logs", level="info"):
        RUN_LOG.info("plan: %d narratives", 200)
        ERROR_LOG.error("narrative 7: timeout")
        PERFORMANCE_LOG.info("7/200")
    said = [(tmp_path / "logs" / name).read_text() for name in NAMES]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(rf"{stamp} INFO plan: 200 narratives\n", said[0])
    assert re.fullmatch(rf"{stamp} ERROR narrative 7: timeout\n", said[1])
    assert re.fullmatch(rf"{stamp} INFO 7/200\n", said[2])


@pytest.mark.usefixtures("open_umask")
def test_files_and_new_directories_are_the_owners_alone_under_an_open_umask(tmp_path: Path) -> None:
    log_dir = tmp_path / "logs" / "experiments" / "id"
    with open_experiment_logs(log_dir, level="info"):
        assert [mode(log_dir / name) for name in NAMES] == [0o600] * 3
    assert [mode(d) for d in (log_dir, log_dir.parent, log_dir.parent.parent)] == [0o700] * 3


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "errors.log").touch(mode=0o644)
    (tmp_path / "errors.log").chmod(0o644)
    with open_experiment_logs(tmp_path, level="info"):
        assert mode(tmp_path / "errors.log") == 0o600


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_directory(tmp_path)
    assert mode(tmp_path) == 0o755


def test_logs_only_grow_when_they_are_opened_again(tmp_path: Path) -> None:
    for run in ("first", "second"):
        with open_experiment_logs(tmp_path, level="info"):
            RUN_LOG.info(run)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "second"]


def test_a_line_that_a_full_disk_tore_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("2024-01-01T00:00:00.000+00:00 INFO torn he")
    with open_experiment_logs(tmp_path, level="info"):
        RUN_LOG.info("next")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[0].endswith("torn he")
    assert lines[1].endswith("INFO next")


def test_what_is_less_severe_than_the_level_is_left_out(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="warning"):
        RUN_LOG.info("quiet")
        RUN_LOG.warning("loud")
    assert "quiet" not in (tmp_path / "run.log").read_text()
    assert "loud" in (tmp_path / "run.log").read_text()


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chatty"):
        open_experiment_logs(tmp_path, level="chatty")


def test_one_event_is_one_line_whatever_it_holds(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="info"):
        RUN_LOG.info("it says: %s", "a\n2024 INFO forged\x1b[2J\udc80")
    assert (tmp_path / "run.log").read_text().count("\n") == 1
    assert r"a\n2024 INFO forged\x1b[2J\udc80" in (tmp_path / "run.log").read_text()


def test_an_exception_is_logged_by_type_and_place_without_its_sentence(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="info"):
        try:
            raise KeyError("quoted input")
        except KeyError:
            RUN_LOG.exception("stopped")
    line = (tmp_path / "run.log").read_text()
    assert "quoted input" not in line
    assert re.search(r"ERROR stopped \[test_logs\.py:\d+ \w+ > KeyError\]\n$", line)


def test_without_open_logs_nothing_is_said_anywhere() -> None:
    program = "from narrun_async.logs import *; RUN_LOG.error('a'); ERROR_LOG.error('b'); PERFORMANCE_LOG.error('c')"
    assert stderr_of(program) == ""


def test_leaving_removes_the_handlers_and_closes_the_files_also_after_an_error(tmp_path: Path) -> None:
    handlers_before = [list(logger.handlers) for logger in LOGGERS]
    open_before = open_descriptors()
    with pytest.raises(RuntimeError):
        with open_experiment_logs(tmp_path, level="info"):
            raise RuntimeError
    assert [list(logger.handlers) for logger in LOGGERS] == handlers_before
    assert open_descriptors() == open_before


def test_root_handlers_see_nothing_of_our_lines(tmp_path: Path) -> None:
    seen = io.StringIO()
    foreign = logging.StreamHandler(seen)
    logging.getLogger().addHandler(foreign)
    try:
        with open_experiment_logs(tmp_path, level="info"):
            RUN_LOG.error("ours")
    finally:
        logging.getLogger().removeHandler(foreign)
    assert seen.getvalue() == ""


@pytest.mark.fault("D17")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_one_warning_and_the_other_files_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device_mode = mode(Path("/dev/full"))
    (tmp_path / "run.log").symlink_to("/dev/full")
    (tmp_path / "performance.log").symlink_to("/dev/full")
    with open_experiment_logs(tmp_path, level="info"):
        for number in range(100):
            RUN_LOG.info("line %d", number)
            PERFORMANCE_LOG.info("line %d", number)
        ERROR_LOG.error("still written")
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1
    assert "run.log cannot be written (No space left on device)" in warned
    assert "still written" in (tmp_path / "errors.log").read_text()
    assert mode(Path("/dev/full")) == device_mode


def test_a_log_directory_that_cannot_be_made_costs_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    with open_experiment_logs(tmp_path / "taken" / "logs", level="info"):
        RUN_LOG.info("unheard")
        ERROR_LOG.error("unheard")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.fault("D17")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_logging_survives_when_stderr_is_gone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    (tmp_path / "run.log").symlink_to("/dev/full")
    for stderr in (closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with open_experiment_logs(tmp_path, level="info"):
            RUN_LOG.info("line")


def test_a_wrong_format_string_does_not_reach_whoever_logs(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from narrun_async.logs import RUN_LOG, open_experiment_logs
with open_experiment_logs(Path(sys.argv[1]), level="info"):
    RUN_LOG.info("%d", "seven")
    RUN_LOG.info("next")
"""
    assert "(TypeError)" in stderr_of(program, str(tmp_path))
    assert (tmp_path / "run.log").read_text().endswith("INFO next\n")
