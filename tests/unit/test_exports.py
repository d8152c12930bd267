"""Exports: which columns, which files, and what is left when they fail or are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from narrun_async.codebook import OUR_COLUMNS, R_COLUMNS, TEXT_COLUMNS
from narrun_async.errors import StorageError
from narrun_async.models import Cohort, Experiment, ExperimentId, ExperimentStatus, NarrativeId
from narrun_async.reporting.exports import ExportedFiles, ExportOptions, export_results
from narrun_async.reporting.exports.plain_text import indicator_list
from narrun_async.stores.sqlite.schema import NARRATIVE_RESULTS

ID = "3f2a9c10-0000-4000-8000-000000000001"


class Rows:
    """A result store that holds these rows and nothing else."""

    def __init__(self, rows: Iterable[Mapping[str, object]]) -> None:
        self._rows = rows
        self.closed = False

    async def iter_results(self, experiment_id: ExperimentId) -> AsyncIterator[Mapping[str, object]]:
        assert experiment_id == ID
        try:
            for row in self._rows:
                yield row
        finally:
            self.closed = True


def experiment(experiment_id: str = ID, *, provider: str = "openai-compatible", **columns: object) -> Experiment:
    return Experiment(
        experiment_id=ExperimentId(experiment_id),
        name="pilot",
        status=ExperimentStatus.COMPLETED,
        cohort=Cohort(data_checksum="c", last_narrative_id=NarrativeId(9), n_narratives=9),
        config_json='{"prompt": "CANARY prompt"}',
        config_sha256="s",
        log_dir=None,
        created_at="2024-01-01 00:00:00",
        columns={
            "experiment_id": experiment_id,
            "experiment_name": "pilot, second",
            "system_prompt": "CANARY prompt",
            "user_template": "CANARY <<TEXT>>",
            "config_json": '{"prompt": "CANARY prompt"}',
            "temperature": 0.2,
            "model_provider": provider,
            **columns,
        },
    )


def row(number: int, **changes: object) -> dict[str, object]:
    columns: dict[str, object] = dict.fromkeys((*R_COLUMNS, *OUR_COLUMNS)) | {
        "result_id": number,
        "experiment_id": ID,
        "incident_id": f"00{number}",
        "narrative_type": "cme",
        "row_num": number,
        "narrative_text": 'CANARY "quoted",\nsecond line',
        "detected": 1,
        "confidence": 0.1 + 0.2,
        "indicators": '["threat, written", "früher"]',
        "rationale": "CANARY",
        "reasoning_steps": "CANARY",
        "raw_response": "CANARY",
        "error_occurred": 0,
        "run_id": 1,
    }
    return columns | changes


async def export_all(
    rows: Iterable[Mapping[str, object]], directory: Path, *, of: Experiment | None = None, **options: Any
) -> ExportedFiles:
    return await export_results(
        Rows(rows),  # type: ignore[arg-type]  # it reads rows, and nothing else
        of or experiment(),
        directory,
        ExportOptions(**({"formats": ["csv", "json"]} | options)),
    )


async def export(rows: Iterable[Mapping[str, object]], directory: Path, **options: Any) -> list[Path]:
    """The files without the codebook."""
    return list((await export_all(rows, directory, **options)).files.values())


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_columns_are_those_of_the_table_in_its_order() -> None:
    assert [*R_COLUMNS, *OUR_COLUMNS] == list(NARRATIVE_RESULTS)


async def test_csv_holds_every_row_in_order_with_null_as_empty(tmp_path: Path) -> None:
    (path,) = await export([row(1), row(2, detected=None, error_occurred=1)], tmp_path, formats=["csv"])
    header, first, second = read_csv(path)
    assert path == tmp_path / f"{ID}.csv"
    assert header == [name for name in (*R_COLUMNS, *OUR_COLUMNS) if name not in TEXT_COLUMNS]
    assert (first[header.index("incident_id")], second[header.index("incident_id")]) == ("001", "002")
    assert (first[header.index("detected")], second[header.index("detected")]) == ("1", "")
    assert float(first[header.index("confidence")]) == 0.1 + 0.2


async def test_csv_is_rfc_4180_in_utf_8(tmp_path: Path) -> None:
    (path,) = await export([row(1)], tmp_path, formats=["csv"], with_text=True)
    body = path.read_bytes()
    assert body.endswith(b"\r\n")
    assert b'"CANARY ""quoted"",\nsecond line"' in body
    assert "früher".encode() in body


async def test_json_holds_experiment_and_results_with_indicators_as_a_list(tmp_path: Path) -> None:
    (path,) = await export([row(1), row(2, indicators=None)], tmp_path, formats=["json"], with_text=True)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["experiment"]["experiment_name"] == "pilot, second"
    assert [result["row_num"] for result in document["results"]] == [1, 2]
    assert [result["indicators"] for result in document["results"]] == [["threat, written", "früher"], None]
    assert list(document["results"][0]) == [*R_COLUMNS, *OUR_COLUMNS]


async def test_json_lines_hold_the_results_of_the_json_file_one_a_line(tmp_path: Path) -> None:
    rows = [row(1), row(2, indicators=None, confidence=float("nan"))]
    document, lines = await export(rows, tmp_path, formats=["json", "jsonl"], with_text=True)
    found = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert found == json.loads(document.read_text(encoding="utf-8"))["results"]


async def test_a_mark_is_put_before_csv_and_codebook_when_it_is_asked_for(tmp_path: Path) -> None:
    for bom in (True, False):
        exported = await export_all([row(1)], tmp_path, formats=["csv"], bom=bom)
        for path in exported.paths:
            assert path.read_bytes().startswith(b"\xef\xbb\xbf") is bom
            assert path.read_text(encoding="utf-8-sig").startswith(("result_id", "position"))


@pytest.mark.parametrize("with_text", [False, True])
async def test_the_codebook_describes_the_columns_of_the_export(tmp_path: Path, with_text: bool) -> None:
    exported = await export_all([row(1)], tmp_path, formats=["csv", "xlsx"], with_text=with_text)
    header, _ = read_csv(exported.files["csv"])
    with exported.codebook.open(encoding="utf-8", newline="") as file:
        described = list(csv.DictReader(file, strict=True))
    assert [one["name"] for one in described] == header
    assert [one["position"] for one in described] == [str(place) for place, _ in enumerate(header, 1)]
    detected = described[header.index("detected")]
    assert (detected["type"], detected["values"]) == ("0 or 1", "0 = no; 1 = yes")
    assert (detected["missing_means"], detected["remarks"]) == ("the row is an error (error_occurred = 1)", "")
    assert described[header.index("response_sec")]["unit"] == "seconds"
    assert described[header.index("tokens_used")]["name_in_xpt_v5"] == "TOKTOTAL"
    assert all(one["label"] and one["meaning"] and one["missing_means"] for one in described)


async def test_the_predecessors_error_messages_are_given_with_texts_only(tmp_path: Path) -> None:
    theirs = row(1, run_id=None, error_message="THEIRS", first_error_message="THEIRS")
    retried = row(2, run_id=1, error_message="ours", first_error_message="THEIRS")
    for formats in (["csv", "json", "jsonl"], ["parquet"]):
        of = experiment(r_version="R version 4.2.2")
        for path in await export([theirs, retried], tmp_path, of=of, formats=formats):
            assert b"THEIRS" not in path.read_bytes()
        for path in await export([theirs, retried], tmp_path, of=of, formats=formats, with_text=True):
            assert b"THEIRS" in path.read_bytes()
    (path,) = await export([row(3, error_message="ours", first_error_message="first")], tmp_path, formats=["csv"])
    assert "ours" in path.read_text() and "first" in path.read_text()


async def test_json_leaves_out_what_quotes_the_narrative(tmp_path: Path) -> None:
    (path,) = await export([row(1)], tmp_path, formats=["json"])
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["experiment"] == {
        "experiment_id": ID,
        "experiment_name": "pilot, second",
        "temperature": 0.2,
        "model_provider": "openai-compatible",
    }
    (result,) = document["results"]
    assert list(result) == [name for name in (*R_COLUMNS, *OUR_COLUMNS) if name not in TEXT_COLUMNS]


async def test_an_experiment_without_rows_gives_a_header_and_an_empty_list(tmp_path: Path) -> None:
    csv_file, json_file = await export([], tmp_path)
    assert len(read_csv(csv_file)) == 1
    assert json.loads(json_file.read_text())["results"] == []


async def test_text_and_prompts_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    for path in await export([row(1)], tmp_path):
        assert "CANARY" not in path.read_text(encoding="utf-8")
    csv_file, json_file = await export([row(1)], tmp_path, with_text=True)
    header, first = read_csv(csv_file)
    assert header == [*R_COLUMNS, *OUR_COLUMNS]
    assert first[header.index("narrative_text")] == 'CANARY "quoted",\nsecond line'
    document = json.loads(json_file.read_text(encoding="utf-8"))
    assert document["results"][0]["raw_response"] == "CANARY"
    assert document["experiment"]["system_prompt"] == "CANARY prompt"


async def test_files_and_directory_are_the_owners_alone_under_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = await export([row(1)], tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    assert [stat.S_IMODE(d.stat().st_mode) for d in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


async def test_repeating_an_export_gives_the_same_files_and_nothing_beside_them(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in await export([row(1), row(2)], tmp_path)]
    again = [path.read_bytes() for path in await export([row(1), row(2)], tmp_path)]
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ID}.codebook.csv", f"{ID}.csv", f"{ID}.json"]


@pytest.mark.parametrize(
    ("stored", "listed"),
    [
        (None, None),
        ("", None),
        ("[]", []),
        ('["a", "b"]', ["a", "b"]),
        ('"a"', ["a"]),
        ("{}", []),
        ("a, b", ["a, b"]),
        ("[NaN]", ["[NaN]"]),
        ("[1e999]", ["[1e999]"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_indicators_become_a_list_whatever_is_stored(stored: object, listed: object) -> None:
    assert indicator_list(stored) == listed


async def test_values_that_no_format_knows_do_not_end_an_export(tmp_path: Path) -> None:
    odd = row(1, confidence=float("inf"), error_message=b"bytes \xff", finish_reason="\udc80", response_model="a\0b")
    csv_file, json_file = await export([odd], tmp_path)
    header, first = read_csv(csv_file)
    assert (first[header.index("error_message")], first[header.index("confidence")]) == ("bytes �", "inf")
    (result,) = json.loads(json_file.read_text(encoding="utf-8"))["results"]
    assert (result["error_message"], result["confidence"], result["finish_reason"]) == ("bytes �", None, "?")


def failing_after(n_rows: int, failure: BaseException) -> Iterator[Mapping[str, object]]:
    for number in range(n_rows):
        yield row(number)
    raise failure


async def test_a_failure_in_the_middle_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    paths = await export([row(1)], tmp_path)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(StorageError, match="gone"):
        await export(failing_after(5000, StorageError("gone")), tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 3


async def test_cancelling_leaves_the_directory_as_it_was_and_closes_the_cursor(tmp_path: Path) -> None:
    class SlowRows(Rows):
        async def iter_results(self, experiment_id: ExperimentId) -> AsyncIterator[Mapping[str, object]]:
            async for each in super().iter_results(experiment_id):
                yield each
                started.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    self.closed = True

    started = anyio.Event()
    store = SlowRows([row(1), row(2)])
    async with anyio.create_task_group() as beside:
        options = ExportOptions(formats=["csv", "json", "xlsx", "parquet"])
        beside.start_soon(lambda: export_results(store, experiment(), tmp_path, options))  # type: ignore[arg-type]
        await started.wait()
        beside.cancel_scope.cancel()
    assert store.closed
    assert list(tmp_path.iterdir()) == []


async def test_a_failing_write_closes_the_cursor(tmp_path: Path) -> None:
    store = Rows([row(1, rationale=object()), row(2)])  # no JSON form: fails in our loop, not in the store's
    with pytest.raises(TypeError):
        await export_results(
            store,  # type: ignore[arg-type]
            experiment(),
            tmp_path,
            ExportOptions(formats=["json"], with_text=True),
        )
    assert store.closed


KILLED = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_exports import ExportOptions, Rows, experiment, export_results, row

def rows():
    for number in range(3000):
        yield row(number)
    print("half", flush=True)
    sys.stdin.read()

options = ExportOptions(formats=sys.argv[3:])
anyio.run(lambda: export_results(Rows(rows()), experiment(), Path(sys.argv[2]), options))
"""


async def test_a_killed_export_leaves_no_half_file_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED),
        str(Path(__file__).parent),
        str(tmp_path),
        "csv",
        "xlsx",
        "dta",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        await export([row(7)], tmp_path)  # one that is still being written is left alone
        (draft,) = tmp_path.glob(".*.partial")
        assert len(list(draft.iterdir())) >= 3
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(read_csv(tmp_path / f"{ID}.csv")) == 2
    await export([row(7)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ID}.codebook.csv", f"{ID}.csv", f"{ID}.json"]


async def test_no_file_takes_its_name_before_all_are_whole(tmp_path: Path) -> None:
    paths = await export([row(1)], tmp_path, formats=["csv", "jsonl"])
    before = [path.read_bytes() for path in paths]
    unlucky = row(2, rationale=object())  # no JSON form: fails when the csv is long begun
    with pytest.raises(TypeError):
        await export([row(2), unlucky], tmp_path, formats=["csv", "jsonl"], with_text=True)
    assert [path.read_bytes() for path in paths] == before
    assert not list(tmp_path.glob(".*.partial"))


def make_file_in_the_way(directory: Path) -> Path:
    (directory / "taken").write_text("")
    return directory / "taken"


def make_target_a_directory(directory: Path) -> Path:
    (directory / f"{ID}.csv").mkdir()
    return directory


@pytest.mark.parametrize("spoil", [make_file_in_the_way, make_target_a_directory])
async def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, spoil: Callable[[Path], Path]) -> None:
    directory = spoil(tmp_path)
    with pytest.raises(StorageError) as caught:
        await export([row(1)], directory)
    assert str(directory) in str(caught.value)
    assert not list(tmp_path.glob(".*.partial"))


async def test_a_file_that_can_grow_no_further_is_named(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # EFBIG: the file can grow no further
    try:
        with pytest.raises(StorageError, match="File too large") as caught:
            await export((row(number) for number in range(5000)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.path is not None
    assert caught.value.path.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


async def test_an_id_from_a_strange_database_cannot_leave_the_directory(tmp_path: Path) -> None:
    for strange in ("../../etc/passwd", "", "a/b", "*", ".hidden", "x" * 300):
        with pytest.raises(StorageError, match="file name"):
            await export_results(
                Rows([]),  # type: ignore[arg-type]
                experiment(strange),
                tmp_path,
                ExportOptions(formats=["csv"]),
            )
    assert list(tmp_path.iterdir()) == []


async def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    text = "synthetic " * 1000
    tracemalloc.start()
    try:
        await export((row(number, narrative_text=text) for number in range(3000)), tmp_path, with_text=True)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / f"{ID}.with-text.json").stat().st_size > 25_000_000
    assert peak_bytes < 2_000_000
