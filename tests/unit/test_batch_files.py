"""Promises of batch files: whole or not there, for their owner only, read line by line, removed by name only."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from narrun_async.errors import StorageError
from narrun_async.stores.batch_files import (
    BatchFiles,
    WholeFile,
    find_batch_files,
    iter_lines,
    remove_leftovers,
    require_unchanged,
)
from narrun_async.stores.removal import BATCH_NAMES, find_files


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "batches" / "batch-0001.jsonl"
    with WholeFile(target) as file:
        file.write(b"one\n")
        file.write(b"two\n")
        assert not target.exists()
        assert file.sha256 == hashlib.sha256(b"one\ntwo\n").hexdigest()
        file.publish()
    assert target.read_bytes() == b"one\ntwo\n"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_that_is_given_up_leaves_nothing_and_the_old_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "batch-0001.jsonl"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), WholeFile(target) as file:
        file.write(b"new")
        raise RuntimeError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_files_and_their_directory_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with WholeFile(tmp_path / "batches" / "batch-0001.jsonl") as file:
            file.publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "batches").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "batches" / "batch-0001.jsonl").stat().st_mode) == 0o600


def test_a_disk_that_refuses_is_a_storage_error_with_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "batches").write_text("a file where the directory should be")
    with pytest.raises(StorageError, match=r"batch-0001\.jsonl"):
        WholeFile(tmp_path / "batches" / "batch-0001.jsonl")


def test_only_the_file_that_was_exported_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "batch-0001.jsonl"
    path.write_bytes(b"as it was\n")
    sha256 = hashlib.sha256(b"as it was\n").hexdigest()
    require_unchanged(path, sha256=sha256)
    path.write_bytes(b"as it is\n")
    with pytest.raises(StorageError, match="not what was exported"):
        require_unchanged(path, sha256=sha256)
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        require_unchanged(path, sha256=sha256)


def lines_of(tmp_path: Path, content: bytes, *, max_bytes: int = 10) -> list[bytes | None]:
    path = tmp_path / "lines"
    path.write_bytes(content)
    return list(iter_lines(path, max_bytes=max_bytes))


def test_lines_come_one_by_one_without_their_ends_and_blank_ones_not_at_all(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b"one\n\n two \r\n\t\nthree") == [b"one", b"two", b"three"]
    assert lines_of(tmp_path, b"") == []


def test_a_line_that_is_too_long_is_passed_over_whole_and_what_follows_is_read(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b"a" * 10 + b"\n" + b"b" * 11 + b"\nnext\n") == [b"a" * 10, None, b"next"]
    assert lines_of(tmp_path, b"b" * 5_000_000 + b"\nnext\n") == [None, b"next"]
    assert lines_of(tmp_path, b"b" * 11) == [None]


def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        list(iter_lines(tmp_path / "nowhere", max_bytes=10))


def test_an_export_that_was_killed_is_cleaned_up_after_and_answers_are_not(tmp_path: Path) -> None:
    kept = ["batch-0001.jsonl", "batch-0007.output.jsonl", "batch-0007.errors.jsonl", "notes.txt", "run.log"]
    gone = ["batch-0002.jsonl", ".batch-0001.jsonl.4711", ".batch-0003.jsonl.1"]
    for name in (*kept, *gone, ".batch-0001.output.jsonl.4711"):
        (tmp_path / name).write_text("made up")
    remove_leftovers(tmp_path, known_numbers=[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".batch-0001.output.jsonl.4711"])
    remove_leftovers(tmp_path / "nowhere", known_numbers=[])


def test_the_files_of_a_batch_are_found_by_its_number_and_no_other(tmp_path: Path) -> None:
    files = BatchFiles(directory=tmp_path, number=12)
    mine = [files.requests, files.output, files.errors, tmp_path / ".batch-0012.output.jsonl.99"]
    for path in (
        *mine,
        tmp_path / "batch-0120.jsonl",
        tmp_path / "batch-0012.jsonl.txt",
        tmp_path / "batch-0001.jsonl",
    ):
        path.write_text("made up")
    assert find_batch_files(tmp_path, 12) == sorted(mine)
    assert find_batch_files(tmp_path / "nowhere", 12) == []


@pytest.mark.parametrize("number", [1, 42, 9999, 10000, 999_999])
def test_every_name_that_is_given_is_one_that_purge_knows(tmp_path: Path, number: int) -> None:
    files = BatchFiles(directory=tmp_path, number=number)
    for path in (files.requests, files.output, files.errors):
        assert BATCH_NAMES.fullmatch(path.name)
        assert BATCH_NAMES.fullmatch(f".{path.name}.{os.getpid()}")


def test_purge_finds_batch_files_and_leaves_what_else_is_there(tmp_path: Path) -> None:
    log_dir = tmp_path / "00000000-0000-4000-8000-000000000001"
    batches = log_dir / "batches"
    batches.mkdir(parents=True)
    (log_dir / "run.log").write_text("made up")
    for name in ("batch-0001.jsonl", ".batch-0001.output.jsonl.77", "mine.txt"):
        (batches / name).write_text("made up")
    (batches / "batch-0002.jsonl").symlink_to(tmp_path / "elsewhere")
    found = find_files(tmp_path / "none.db", [(log_dir.name, str(log_dir))])
    assert {path.name for path in found.files} == {"batch-0001.jsonl", ".batch-0001.output.jsonl.77", "run.log"}
    assert {Path(one.path).name for one in found.left} == {"mine.txt", "batch-0002.jsonl"}
    assert list(found.directories) == [batches, log_dir]


def test_purge_does_not_follow_a_link_in_the_place_of_the_directory(tmp_path: Path) -> None:
    log_dir, elsewhere = tmp_path / "00000000-0000-4000-8000-000000000001", tmp_path / "elsewhere"
    log_dir.mkdir()
    elsewhere.mkdir()
    (elsewhere / "batch-0001.jsonl").write_text("somebody else's")
    (log_dir / "batches").symlink_to(elsewhere)
    found = find_files(tmp_path / "none.db", [(log_dir.name, str(log_dir))])
    assert not found.files
    assert [Path(one.path).name for one in found.left] == ["batches"]
