"""Reading bytes, hashing them, and telling kinds of files apart."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from narrun_async.errors import BadInputError
from narrun_async.sources import file_checksum, file_md5, open_source

CSV = b"incident_id,narrative_type,narrative_text,manual_flag_ind\n1,cme,An invented text.,0\n"


def test_checksums_are_those_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(CSV)
    assert file_checksum(path) == hashlib.sha256(CSV).hexdigest() == open_source(path).checksum
    assert file_md5(path) == hashlib.md5(CSV).hexdigest()
    assert open_source(path).path == str(path)


def test_a_checksum_and_a_csv_need_no_openpyxl(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(CSV)
    program = (
        "import sys; from pathlib import Path; from narrun_async.sources import file_checksum, open_source\n"
        "path = Path(sys.argv[1]); file_checksum(path); assert len(list(open_source(path).iter_narratives())) == 1\n"
        "assert 'openpyxl' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.fault("W18", "W19", "W20", "W24")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cases.xlsx", b"", "is empty (0 bytes)"),
        ("cases.xlsx", CSV, "looks like CSV text — rename it to .csv"),
        ("cases.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted or an old .xls workbook"),
        ("cases.xlsx", b"PK\x03\x04" + b"\0" * 200, "damaged or cut short"),
        ("cases.csv", "incident_id\n".encode("utf-16"), "UTF-16"),
        ("cases.csv", b"\x89\0\0\1", "neither a workbook nor a CSV table"),
        ("cases.sav", CSV, ".sav files are not read"),
    ],
    ids=["empty", "csv-as-xlsx", "ole", "truncated", "utf-16", "binary", "other-suffix"],
)
def test_what_is_no_table_is_refused_with_what_to_do(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert caught.value.advice


@pytest.mark.fault("W25")
@pytest.mark.parametrize("function", [open_source, file_checksum, file_md5])
def test_a_missing_file_a_directory_and_a_pipe_are_refused(tmp_path: Path, function: object) -> None:
    assert callable(function)
    os.mkfifo(tmp_path / "pipe.csv")
    for path, said in [
        (tmp_path / "none.csv", "there is no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.csv", "not a regular file"),
    ]:
        with pytest.raises(BadInputError, match=said):
            function(path)


def test_a_csv_has_no_sheets(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(CSV)
    with pytest.raises(BadInputError, match="no sheet 'S'"):
        open_source(path, sheet="S")


@pytest.mark.fault("W21")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a file whose size is not that of its content")
def test_a_file_that_is_longer_than_its_size_said_has_changed_while_it_was_read() -> None:
    with pytest.raises(BadInputError, match="changed while it was read"):
        open_source(Path("/proc/self/status"))
