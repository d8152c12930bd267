"""Workbooks and tables at the door of the real program: one sentence, exit code 65, and a database as it was."""

from __future__ import annotations

import csv
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import xlsxwriter
from bad_workbooks import BAD_FILES, CANARY, LONG, WIDE, BadFile, Rows, Write, content, patched, saved, saved_by_excel
from doorway import Doorway, open_doorway
from harness import Finished, Row, Workplace
from reliability import Measured

pytestmark = pytest.mark.crash

NO_OPTIONS: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def door() -> Iterator[Doorway]:
    with open_doorway() as doorway:
        yield doorway


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database that holds 20 narratives, and has to hold them afterwards."""

    workplace: Workplace
    before: bytes

    def require_untouched(self) -> None:
        assert self.workplace.database.read_bytes() == self.before
        names = {path.name for path in self.workplace.database.parent.iterdir()}
        assert names == {"experiments.db", "experiments.db.lock"}


@pytest.fixture(scope="module")
def place(door: Doorway, tmp_path_factory: pytest.TempPathFactory) -> Place:
    workplace = Workplace(directory=tmp_path_factory.mktemp("place"))
    door.run(workplace, "ingest", workplace.write_narratives(20)).expect(0)
    return Place(workplace=workplace, before=workplace.database.read_bytes())


# --- what is refused -------------------------------------------------------------------------------------------------

FAULTS = sorted({bad.fault for bad in BAD_FILES})


@pytest.mark.parametrize("fault", [pytest.param(fault, marks=pytest.mark.fault(fault)) for fault in FAULTS])
def test_a_bad_file_is_refused_in_one_sentence_and_changes_no_byte(
    fault: str, door: Doorway, place: Place, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    files = [bad for bad in BAD_FILES if bad.fault == fault and (bad.is_representative or is_long)]
    assert files
    for number, bad in enumerate(files):
        path = tmp_path / str(number) / bad.name
        path.parent.mkdir()
        bad.write(path)
        require_refusal(door.run(place.workplace, "ingest", path, *bad.flags), path, bad)
        place.require_untouched()
        measured(f"{bad.what}: exit 65, one sentence, database unchanged byte for byte")


def require_refusal(finished: Finished, path: Path, bad: BadFile) -> None:
    finished.expect(65)
    assert finished.out == ""
    assert finished.err.startswith(f"narrun: {path}")
    assert finished.err.count("\n") == 1
    assert " — " in finished.err, "it says what to do"
    assert all(words in finished.err for words in bad.said), finished.err
    assert "canary" not in finished.err


def test_a_program_that_is_started_from_nothing_says_the_same(place: Place, tmp_path: Path, is_long: bool) -> None:
    chosen = [bad for bad in BAD_FILES if bad.is_representative]
    for number, bad in enumerate(chosen if is_long else chosen[:1]):
        path = tmp_path / str(number) / bad.name
        path.parent.mkdir()
        bad.write(path)
        require_refusal(place.workplace.run("ingest", path, *bad.flags), path, bad)
        place.require_untouched()


def test_without_a_database_a_bad_file_leaves_one_without_rows(door: Doorway, tmp_path: Path) -> None:
    workplace = Workplace(directory=tmp_path)
    bad = BAD_FILES[0]
    bad.write(tmp_path / bad.name)
    door.run(workplace, "ingest", bad.name).expect(65)
    assert workplace.ask_one("SELECT COUNT(*) FROM source_narratives") == 0


def test_a_run_over_a_bad_file_is_refused_before_anything_is_created(door: Doorway, place: Place) -> None:
    directory = place.workplace.directory
    bad = next(bad for bad in BAD_FILES if bad.fault == "W06")
    bad.write(directory / bad.name)
    config = place.workplace.write_config(url="http://127.0.0.1:9/v1", narratives=directory / bad.name)
    require_refusal(door.run(place.workplace, "run", config), directory / bad.name, bad)
    place.require_untouched()
    assert not (directory / "logs").exists()


# --- what is taken, and what is said about it ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    fault: str
    what: str
    write: Write
    #: (incident_id, narrative_text) as stored
    rows: Sequence[tuple[str, str]]
    said: tuple[str, ...] = ()
    flags: tuple[str, ...] = NO_OPTIONS


def _ids(*ids: object) -> Rows:
    return [WIDE, *([one, f"Text {number}", None] for number, one in enumerate(ids))]


def _hidden_among(xml: bytes) -> bytes:
    return xml.replace(b'<dimension ref="A1:C4"', b'<dimension ref="A1:B2"')


TAKEN = (
    Taken(
        fault="W02",
        what="numbers as ids",
        write=saved(_ids(12345, 12345.5, 999_999_999_999_999, 77.0)),
        rows=[("12345", "Text 0"), ("12345.5", "Text 1"), ("999999999999999", "Text 2"), ("77", "Text 3")],
    ),
    Taken(
        fault="W04",
        what="zeros and spaces around ids",
        write=saved(_ids("00123", " 77 ", "12345.0"), [["x"]]),
        rows=[("00123", "Text 0"), ("77", "Text 1"), ("12345.0", "Text 2")],
    ),
    Taken(
        fault="W04",
        what="ids that are one once stripped",
        write=saved([WIDE, ["77", "Text", None], [" 77 ", None, "More"]]),
        rows=[("77", "Text"), ("77", "More")],
        said=("equals another one once the spaces around it are removed: A3",),
    ),
    Taken(
        fault="W06",
        what="rows without id, on request",
        write=saved(_ids(None, "8")),
        rows=[("8", "Text 1")],
        said=("1 ",),
        flags=("--skip-blank-ids",),
    ),
    Taken(
        fault="W07",
        what="the same narrative twice",
        write=saved([WIDE, ["7", "Text", None], ["7", "Text", None]]),
        rows=[("7", "Text")],
        said=("1 ",),
    ),
    Taken(
        fault="W08",
        what="two texts of one narrative, on request",
        write=saved([WIDE, ["7", "Text", None], ["7", "Another", None]]),
        rows=[("7", "Text")],
        said=("1 ",),
        flags=("--on-conflict", "first"),
    ),
    Taken(
        fault="W11",
        what="escapes of Excel",
        write=saved_by_excel([WIDE, ["7", "a _x000D_ b", "_x0041_"]]),
        rows=[("7", "a _x000D_ b"), ("7", "_x0041_")],
    ),
    Taken(
        fault="W11",
        what="carriage returns of Excel",
        write=patched(
            saved_by_excel([WIDE, ["7", "a@x000D@\nb", "@x0041@ @x005F@x0042@"]]),
            lambda xml: xml.replace(b"@", b"_"),
            "xl/sharedStrings.xml",
        ),
        rows=[("7", "a\nb"), ("7", "A _x0042_")],
    ),
    Taken(
        fault="W12",
        what="NUL, controls and half characters",
        write=patched(
            saved_by_excel([WIDE, ["7", "a@x0000@b@x0007@c@xD800@d", "@xD83D@@xDE00@ naïve"]]),
            lambda xml: xml.replace(b"@", b"_"),
            "xl/sharedStrings.xml",
        ),
        rows=[("7", "a\ufffdb\ufffdc\ufffdd"), ("7", "😀 naïve")],
        said=("2 ",),
    ),
    Taken(
        fault="W13",
        what="a full cell",
        write=saved([WIDE, ["7", "x" * 32_767, "Text"]]),
        rows=[("7", "x" * 32_767), ("7", "Text")],
        said=("32,767 characters", "B2"),
    ),
    Taken(
        fault="W14",
        what="the one sheet that fits is hidden",
        write=saved([["Notes"]], _ids("7"), hidden=["B"]),
        rows=[("7", "Text 0")],
        said=("the sheet 'B' is hidden",),
    ),
    Taken(
        fault="W15",
        what="a stale dimension",
        write=patched(saved(_ids("7", "8", "9")), _hidden_among),
        rows=[("7", "Text 0"), ("8", "Text 1"), ("9", "Text 2")],
    ),
)


@pytest.mark.parametrize(
    "taken",
    [pytest.param(one, marks=pytest.mark.fault(one.fault), id=f"{one.fault}-{one.what[:30]}") for one in TAKEN],
)
def test_what_can_be_understood_is_stored_in_its_canonical_form(
    taken: Taken, door: Doorway, tmp_path: Path, measured: Measured
) -> None:
    workplace = Workplace(directory=tmp_path)
    taken.write(tmp_path / "cases.xlsx")
    visit = door.run(workplace, "ingest", "cases.xlsx", *taken.flags).expect(0)
    assert all(words in visit.out for words in taken.said), visit.out
    assert _stored(workplace) == list(taken.rows)
    measured(f"{taken.what}: {len(taken.rows)} narratives stored as they are meant")


def _stored(workplace: Workplace) -> list[tuple[str, str]]:
    found = workplace.ask("SELECT incident_id, narrative_text FROM source_narratives ORDER BY narrative_id")
    return [(row["incident_id"], row["narrative_text"]) for row in found]


# --- a file that changes ---------------------------------------------------------------------------------------------


@pytest.mark.fault("W21")
def test_a_file_that_is_written_while_it_is_read_is_refused(
    door: Doorway, place: Place, tmp_path: Path, measured: Measured
) -> None:
    path = tmp_path / "cases.csv"
    content(LONG + "".join(f"{n},cme,{CANARY} {'word ' * 200},0\n" for n in range(20_000)))(path)
    with _growing(path):
        visit = door.run(place.workplace, "ingest", path)
    bad = BadFile(fault="W21", what="changes", write=content(""), said=("changed while it was read", "try again"))
    require_refusal(visit, path, bad)
    place.require_untouched()
    measured("a 20 MB table that grows line by line: refused, database unchanged byte for byte")


@contextmanager
def _growing(path: Path) -> Iterator[None]:
    is_over = threading.Event()

    def grow() -> None:
        with path.open("a", buffering=1) as file:
            while not is_over.wait(0.0005):
                file.write(f"0,cme,{CANARY},0\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


@pytest.mark.fault("W22")
def test_a_resume_works_from_the_database_and_says_that_the_file_has_changed(
    door: Doorway, tmp_path: Path, measured: Measured
) -> None:
    workplace = Workplace(directory=tmp_path)
    table = workplace.write_narratives(6)
    config = workplace.write_config(url=None, narratives=table)
    door.run(workplace, "run", config).expect(0)
    known = workplace.experiment_id()
    texts, untouched = _stored(workplace), door.run(workplace, "resume", known, "--dry-run").expect(0)
    assert "has changed" not in untouched.err
    table.write_text(table.read_text().replace("case 3 ends here", "case 3 has another end"))

    changed = door.run(workplace, "resume", known, "--dry-run").expect(0)
    assert f"{table} has changed since it was loaded" in changed.err
    assert "6 successes" in changed.err
    assert "nothing to do" in door.run(workplace, "resume", known).expect(0).err
    assert "use another --db" in door.run(workplace, "ingest", table).expect(65).err

    table.unlink()
    assert "nothing to do" in door.run(workplace, "resume", known).expect(0).err
    table.mkdir()
    assert "nothing to do" in door.run(workplace, "resume", known).expect(0).err
    assert _stored(workplace) == texts
    measured("changed, gone, a directory in its place: resumed from the database; only `ingest` refuses")


# --- loading again ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("W27")
def test_loading_again_is_a_no_op_a_refusal_or_an_addition_and_never_a_change(
    door: Doorway, tmp_path: Path, measured: Measured
) -> None:
    workplace = Workplace(directory=tmp_path)
    table = workplace.write_narratives(12)
    door.run(workplace, "run", workplace.write_config(url=None, narratives=table)).expect(0)
    known = workplace.experiment_id()
    header, *rows = table.read_text().splitlines(keepends=True)
    rows_before = _everything(workplace)

    def ingest(name: str, lines: Sequence[str], code: int) -> Finished:
        (tmp_path / name).write_text("".join([header, *lines]))
        return door.run(workplace, "ingest", name).expect(code)

    for name, lines in {"same.csv": rows, "shuffled.csv": random.Random(7).sample(rows, len(rows))}.items():
        assert "12 narratives" in ingest(name, lines, 0).out
        assert _everything(workplace) == rows_before
    bytes_before = workplace.database.read_bytes()
    for name, lines in {
        "subset.csv": rows[:5],
        "changed.csv": [*rows[:-1], rows[-1].replace("ends here", "ends there")],
        "overlapping.csv": [*rows[6:], *(row.replace("1000", "2000") for row in rows[:6])],
        "superset.csv": [*rows, rows[0].replace("100001", "300001")],
    }.items():
        assert "in the database already" in ingest(name, lines, 65).err
        assert workplace.database.read_bytes() == bytes_before

    disjoint = [row.replace("1000", "2000") for row in rows]
    ingest("disjoint.csv", disjoint, 0)
    assert workplace.ask_one("SELECT COUNT(*) FROM source_narratives") == 24
    experiment = workplace.experiment()
    assert experiment["n_narratives_total"] == 12
    assert "nothing to do" in door.run(workplace, "resume", known).expect(0).err
    door.run(workplace, "verify").expect(0)
    measured("under another name, shuffled: nothing happens; a part, more, an overlap, a changed text: refused")
    measured("other cases: added, the experiment keeps its cohort")


def _everything(workplace: Workplace) -> list[list[Row]]:
    tables = ("source_narratives", "experiments", "narrative_results", "runs", "attempts")
    return [workplace.ask(f"SELECT * FROM {table}") for table in tables]


# --- size ------------------------------------------------------------------------------------------------------------

MAX_RSS_MB = 400
MAX_SECONDS = 60


@pytest.mark.fault("W28")
@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_a_large_file_is_streamed(kind: str, door: Doorway, tmp_path: Path, is_long: bool, measured: Measured) -> None:
    n_rows = 200_000 if is_long else 4_000
    workplace = Workplace(directory=tmp_path)
    path = tmp_path / f"cases.{kind}"
    _write_large(path, n_rows)
    visit = door.run(workplace, "ingest", path).expect(0)
    assert workplace.ask_one("SELECT COUNT(*) FROM source_narratives") == n_rows
    assert visit.rss_mb <= MAX_RSS_MB
    assert visit.cpu_s <= MAX_SECONDS
    size_mb = path.stat().st_size / 1e6
    measured(
        f"{n_rows:,} rows of {kind} ({size_mb:,.0f} MB): {visit.rss_mb:.0f} MB of memory, "
        f"{visit.cpu_s:.1f} s of processor, {visit.took_s:.1f} s"
    )


def _write_large(path: Path, n_rows: int) -> None:
    """Texts of 50 to 500 characters, hard to compress, in the shared string table of the workbook as Excel has them."""
    rng = random.Random(7)
    words = [f"{rng.randrange(2**24):x}" for _ in range(5_000)]
    header = LONG.strip().split(",")
    rows = ([f"{n}", "cme", " ".join(rng.choices(words, k=7 * (1 + n % 10))), "0"] for n in range(n_rows))
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate([header, *rows]):
            sheet.write_row(number, 0, row)
