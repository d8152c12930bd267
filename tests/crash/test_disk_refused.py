"""Databases that cannot be worked on: refused at once with what to do, and left exactly as they were."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import can_drop_rights, needs_namespaces, without_rights
from harness import NARRUN, Workplace
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

FEW = 40


def prepare(workplace: Workplace, url: str) -> Path:
    narratives = workplace.write_narratives(FEW)
    workplace.run("ingest", narratives).expect(0)
    return workplace.write_config(url=url, narratives=narratives)


@contextmanager
def modes(modes_by_path: dict[Path, int]) -> Iterator[None]:
    before = {path: path.stat().st_mode for path in modes_by_path}
    for path, mode in modes_by_path.items():
        path.chmod(mode)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


@pytest.mark.fault("D13")
@pytest.mark.skipif(not can_drop_rights(), reason="root without setpriv overrides every mode")
@pytest.mark.parametrize("what", ["file", "directory", "both"])
def test_a_read_only_database_is_named_at_once_and_not_touched(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, what: str
) -> None:
    endpoint = start_endpoint()
    config = prepare(workplace, endpoint.url)
    directory, before = workplace.database.parent, workplace.database.read_bytes()
    chosen = {"file": {workplace.database: 0o400}, "directory": {directory: 0o500}}
    for path in directory.glob("*.lock*"):
        path.unlink()  # as it is where nobody has worked yet
    with modes(chosen.get(what) or chosen["file"] | chosen["directory"]):
        began = time.monotonic()
        with workplace.start_command(*without_rights(), *NARRUN, "run", str(config)) as process:
            refused = process.wait().expect(74)
        took_s = time.monotonic() - began
    assert "data/experiments.db" in refused.err
    assert "Traceback" not in refused.err
    assert workplace.database.read_bytes() == before
    assert endpoint.calls() == 0
    print(f"{what}: {refused.err.strip()} ({took_s:.1f} s)")
    measured(f"{what} read-only: exit 74, the path is named, not a byte changed")


@needs_namespaces
@pytest.mark.fault("D18")
@pytest.mark.parametrize(("kind", "is_refused"), [("nfs4", True), ("fuse.sshfs", True), ("fuse.gocryptfs", False)])
def test_a_database_on_a_network_file_system_is_refused_by_whatever_writes(
    workplace: Workplace, measured: Measured, kind: str, is_refused: bool
) -> None:
    narratives = workplace.write_narratives(FEW)
    table = workplace.directory / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"36 22 0:31 / {workplace.directory.resolve()} rw,relatime - {kind} server:/share rw\n"
    )
    script = 'mount --bind "$0" "/proc/$$/mountinfo" && exec "$@"'
    inside = ("unshare", "-Urm", "sh", "-c", script, str(table), *NARRUN)
    with workplace.start_command(*inside, "ingest", str(narratives)) as process:
        ended = process.wait()
    if is_refused:
        assert f"network file system ({kind})" in ended.expect(74).err
        assert not workplace.database.exists()
    else:
        ended.expect(0)
    measured(f"{kind}: {'refused' if is_refused else 'taken (most FUSE file systems are local)'}")


@pytest.mark.fault("D12")
def test_a_bit_that_flips_in_a_stored_text_becomes_an_error_row_and_is_not_sent(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    record = workplace.directory / "requests.jsonl"
    endpoint = start_endpoint("--record", str(record))
    config = prepare(workplace, endpoint.url)
    content = bytearray(workplace.database.read_bytes())
    at = content.index(b"case 7 ends here")
    content[at] ^= 0x01  # `b`, still a letter
    workplace.database.write_bytes(content)
    workplace.run("run", config).expect(1)
    workplace.require_sound()
    errors = workplace.ask("SELECT incident_id, error_category FROM narrative_results WHERE error_occurred = 1")
    assert [tuple(row.values()) for row in errors] == [("100007", "source_changed")]
    assert endpoint.calls() == FEW - 1
    assert "base 7" not in record.read_text(encoding="utf-8")
    assert "case 6" in record.read_text(encoding="utf-8")
    measured(f"1 of {FEW} texts changed: 1 error row `source_changed`, its text was not sent")


@pytest.mark.fault("D15")
def test_a_file_of_another_program_is_refused_by_run_and_ingest_and_left_as_it_was(
    workplace: Workplace, measured: Measured
) -> None:
    narratives = workplace.write_narratives(FEW)
    config = workplace.write_config(url="http://127.0.0.1:9/v1", narratives=narratives)
    workplace.database.parent.mkdir()
    with closing(sqlite3.connect(workplace.database)) as db, db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    before = workplace.database.read_bytes()
    for command in (("run", config), ("ingest", narratives)):
        assert "another program" in workplace.run(*command).expect(74).err
    assert workplace.database.read_bytes() == before
    measured("by the commands themselves: exit 74, byte for byte as before")
