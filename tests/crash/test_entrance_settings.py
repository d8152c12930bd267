"""Configurations, variables and flags at the door of the real program: one sentence, its exit code, nothing made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from bad_configs import BAD_CONFIGS, GOOD, BadConfig
from doorway import Doorway, Visit, open_doorway
from harness import Finished, Workplace
from reliability import Measured

pytestmark = pytest.mark.crash

MAX_RSS_MB = 100
MAX_SECONDS = 1.0
FAULTS = sorted({bad.fault for bad in BAD_CONFIGS})


@pytest.fixture(scope="module")
def door() -> Iterator[Doorway]:
    with open_doorway() as doorway:
        yield doorway


# --- configurations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [pytest.param(fault, marks=pytest.mark.fault(fault)) for fault in FAULTS])
def test_a_bad_configuration_is_refused_in_one_sentence_before_anything_is_made(
    fault: str, door: Doorway, workplace: Workplace, is_long: bool, measured: Measured
) -> None:
    workplace.write_narratives(2)
    files = [bad for bad in BAD_CONFIGS if bad.fault == fault]
    visits: list[Visit] = []
    for bad in files if is_long else files[:1]:
        path = workplace.directory / "bad.yaml"
        path.write_bytes(bad.content)
        visit = door.run(workplace, "run", path, environment=bad.environment)
        require_refusal(visit, bad)
        require_nothing_made(workplace)
        assert visit.rss_mb <= MAX_RSS_MB
        assert visit.cpu_s <= MAX_SECONDS
        visits.append(visit)
    slowest, largest = max(visit.cpu_s for visit in visits), max(visit.rss_mb for visit in visits)
    measured(f"{len(visits)} configurations: exit 78, one sentence; {slowest:.2f} s, {largest:.0f} MB at most")


def require_refusal(finished: Finished, bad: BadConfig) -> None:
    finished.expect(78)
    assert finished.out == ""
    assert finished.err.startswith("narrun: ")
    assert finished.err.count("\n") == 1
    assert len(finished.err) < 1_000
    assert all(words in finished.err for words in bad.said), finished.err
    assert ("bad.yaml" in finished.err) == bad.names_file
    assert "canary" not in finished.err


def require_nothing_made(workplace: Workplace) -> None:
    made = {path.name for path in workplace.directory.iterdir() if not path.name.startswith(("out-", "err-"))}
    assert made == {"narratives.csv", "bad.yaml"}


def test_a_program_that_is_started_from_nothing_says_the_same(workplace: Workplace, is_long: bool) -> None:
    workplace.write_narratives(2)
    for bad in BAD_CONFIGS if is_long else [one for one in BAD_CONFIGS if one.fault == "Y03"][:1]:
        path = workplace.directory / "bad.yaml"
        path.write_bytes(bad.content)
        require_refusal(workplace.run("run", path, environment=bad.environment), bad)
        require_nothing_made(workplace)


def test_the_good_configuration_from_which_the_bad_ones_are_made_is_taken(door: Doorway, workplace: Workplace) -> None:
    workplace.write_narratives(2)
    (workplace.directory / "good.yaml").write_text(GOOD)
    assert "2 of 2 narratives" in door.run(workplace, "run", "good.yaml", "--dry-run").expect(0).err


# --- switches and variables ------------------------------------------------------------------------------------------

SOME_ID = "00000000-0000-4000-8000-000000000001"

NONSENSE: Mapping[str, tuple[Mapping[str, str], tuple[str, ...], str]] = {
    "neither yes nor no": ({"RESUME": "maybe"}, (), "RESUME must be 1, true, yes, 0, false or no"),
    "another number": ({"RETRY_ERRORS_ONLY": "2"}, (), "RETRY_ERRORS_ONLY must be"),
    "retry without resume": ({"RETRY_ERRORS_ONLY": "1"}, (), "RESUME=1"),
    "retry by flag without resume": ({}, ("--retry-errors",), "--resume --experiment-id"),
    "both ways to retry": ({}, ("--retry-errors-only", "--retry-errors"), "contradict each other"),
    "an id without resume": ({"EXPERIMENT_ID": SOME_ID}, (), "add RESUME=1"),
    "an id by flag without resume": ({}, ("--experiment-id", SOME_ID), "add RESUME=1"),
    "an unknown variable": ({"NARRUN_CONCURENCY": "4"}, (), "unknown environment variable NARRUN_CONCURENCY"),
    "an unknown variable beside a known one": ({"NARRUN_CONFIG": "x", "NARRUN_DB": ""}, (), "NARRUN_DB"),
    "resume of nothing": ({"RESUME": "1", "EXPERIMENT_ID": SOME_ID}, (), "no database here to resume from"),
    "no concurrency": ({}, ("--concurrency", "0"), "a number from 1 to 4096, or `auto`"),
    "a concurrency of 5,000 digits": ({}, ("-c", "9" * 5_000), "a number from 1 to 4096, or `auto`"),
    "a concurrency in other digits": ({}, ("-c", "٣"), "a number from 1 to 4096, or `auto`"),
}


@pytest.mark.fault("Y14")
@pytest.mark.parametrize("what", NONSENSE)
def test_switches_that_make_no_sense_are_refused_by_name_before_anything_is_made(
    what: str, door: Doorway, workplace: Workplace, measured: Measured
) -> None:
    environment, flags, said = NONSENSE[what]
    workplace.write_narratives(2)
    (workplace.directory / "bad.yaml").write_text(GOOD)
    visit = door.run(workplace, "run", "bad.yaml", *flags, environment=environment).expect(2)
    assert said in visit.err
    assert visit.err.count("\n") == 1
    assert visit.out == ""
    require_nothing_made(workplace)
    measured(f"{what}: exit 2, named")


# --- which experiment ------------------------------------------------------------------------------------------------

TWIN = "abcdef01-0000-4000-8000-00000000000"


@pytest.fixture(scope="module")
def finished_runs(door: Doorway, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A database with three experiments; two of them begin alike."""
    workplace = Workplace(directory=tmp_path_factory.mktemp("runs"))
    config = workplace.write_config(url=None, narratives=workplace.write_narratives(4))
    door.run(workplace, "run", config).expect(0)
    # without the log directory, whose journal knows of results that the copies do not have
    columns = ", ".join(name for name in workplace.experiment() if name not in {"experiment_id", "log_dir"})
    with closing(sqlite3.connect(workplace.database)) as connection, connection:
        for number in (1, 2):
            connection.execute(
                f"INSERT INTO experiments (experiment_id, {columns}) SELECT ?, {columns} FROM experiments LIMIT 1",
                (f"{TWIN}{number}",),
            )
    return workplace


WRONG_IDS: Mapping[str, tuple[str, str]] = {
    "a path": ("../../etc", "is not an experiment id"),
    "SQL": ("'; DROP TABLE experiments; --", "is not an experiment id"),
    "a pattern": ("%%%%%%%%", "is not an experiment id"),
    "too short": (TWIN[:7], "at least its first 8 characters"),
    "too long": ("a" * 10_000, "is not an experiment id"),
    "capital letters": (TWIN.upper(), "is not an experiment id"),
    "unknown": ("ffffffff-0000-4000-8000-000000000000", "`narrun list` shows the ids"),
    "ambiguous": (TWIN[:8], f"{TWIN}2, {TWIN}1"),
}


@pytest.mark.fault("Y15")
@pytest.mark.parametrize("what", WRONG_IDS)
def test_an_id_that_leads_nowhere_is_refused_and_changes_no_byte(
    what: str, door: Doorway, finished_runs: Workplace, measured: Measured
) -> None:
    wanted, said = WRONG_IDS[what]
    before = finished_runs.database.read_bytes()
    visit = door.run(finished_runs, "run", environment={"RESUME": "1", "EXPERIMENT_ID": wanted}).expect(2)
    assert said in visit.err
    assert len(visit.err) < 400
    assert finished_runs.database.read_bytes() == before
    measured(f"{what}: exit 2, database unchanged byte for byte")


@pytest.mark.fault("Y15")
def test_a_resume_without_an_id_is_refused(door: Doorway, finished_runs: Workplace, measured: Measured) -> None:
    visit = door.run(finished_runs, "run", environment={"RESUME": "1"}).expect(2)
    assert "RESUME needs an experiment id — no experiment in this database is incomplete" in visit.err
    measured("no id: exit 2, with the ids that could be resumed, or that there is none")


@pytest.mark.fault("Y14")
@pytest.mark.parametrize("word", ["1", "true", "YES", " yes "])
def test_every_way_to_say_yes_resumes(word: str, door: Doorway, finished_runs: Workplace) -> None:
    environment = {"RESUME": word, "EXPERIMENT_ID": f"{TWIN}1"}
    assert f"{TWIN}1" in door.run(finished_runs, "run", "--dry-run", environment=environment).expect(0).err


@pytest.mark.fault("Y14")
@pytest.mark.parametrize(
    ("environment", "flags"), [({"RESUME": "no"}, ()), ({"RESUME": "1"}, ("--no-resume",)), ({"RESUME": ""}, ())]
)
def test_who_says_no_gets_a_new_experiment(
    environment: Mapping[str, str], flags: tuple[str, ...], door: Doorway, finished_runs: Workplace
) -> None:
    environment = {**environment, "EXPERIMENT_ID": f"{TWIN}1"}
    visit = door.run(finished_runs, "run", "crash.yaml", "--dry-run", *flags, environment=environment).expect(0)
    assert "a new one" in visit.err


@pytest.mark.fault("Y15")
def test_a_configuration_beside_an_id_is_compared_and_changes_nothing(
    door: Doorway, finished_runs: Workplace, measured: Measured
) -> None:
    other = finished_runs.write_config(
        url=None, narratives=finished_runs.directory / "narratives.csv", name="other", model__temperature=1.5
    )
    flags = ("--resume", "--experiment-id", f"{TWIN}2", "--dry-run")
    before = finished_runs.database.read_bytes()
    visit = door.run(finished_runs, "run", other, *flags).expect(0)
    assert "The stored one is used" in visit.err
    assert "model.temperature" in visit.err
    assert f"{TWIN}2 (crash)" in visit.err
    assert finished_runs.database.read_bytes() == before
    measured("an id and another configuration: the stored one is used, each difference is shown")


# --- paths -----------------------------------------------------------------------------------------------------------

NO_DATABASES: Mapping[str, tuple[str, str]] = {
    "a directory": (".", "not a regular file"),
    "nothing": ("", "not a regular file"),
    "a device": ("/dev/null", "not a regular file"),
    "too long a name": ("x" * 300, "File name too long"),
    "a name that is no UTF-8": ("\udcff.db", "its name is not UTF-8"),
    "a file that is no database": ("narratives.csv", "not a SQLite database"),
    "below a file": ("narratives.csv/x.db", "narratives.csv/x.db"),
}


@pytest.mark.parametrize("what", NO_DATABASES)
def test_what_cannot_be_a_database_is_refused(what: str, door: Doorway, workplace: Workplace, is_long: bool) -> None:
    name, said = NO_DATABASES[what]
    narratives = workplace.write_narratives(2)
    workplace.write_config(url=None, narratives=narratives)
    before = narratives.read_bytes()
    commands = ("list", "ingest narratives.csv", "run crash.yaml")
    for command in commands if is_long else commands[:1]:
        visit = door.run(workplace, *command.split(), "--db", name).expect(74)
        assert said in visit.err
        assert visit.err.count("\n") == 1
        assert narratives.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        "batch export latest",
        "batch submit latest",
        "batch cancel latest",
        "review sample latest --reviewer anna",
        "review import narratives.xlsx",
        "review adjudicate 1",
    ],
)
def test_a_slip_in_the_name_of_the_database_makes_none(command: str, door: Doorway, workplace: Workplace) -> None:
    visit = door.run(workplace, *command.split(), "--db", "slip/none.db").expect(74)
    assert visit.err == "narrun: slip/none.db: there is no database here — name one with --db\n"
    assert not (workplace.directory / "slip").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "crash.yaml", "--log-dir", "\udcff"),
        ("run", "\udcff.yaml"),
        ("sweep", "\udcff.yaml"),
        ("batch", "export", "latest", "--out", "\udcff"),
        ("batch", "export", "--new", "\udcff.yaml"),
        ("review", "sample", "latest", "--reviewer", "anna", "--out", "\udcff"),
    ],
)
def test_a_path_that_cannot_be_recorded_is_refused(
    arguments: tuple[str, ...], door: Doorway, workplace: Workplace
) -> None:
    workplace.write_config(url=None, narratives=workplace.write_narratives(2))
    visit = door.run(workplace, *arguments).expect(2)
    assert "this name is not UTF-8" in visit.err
    assert visit.err.count("\n") == 1
    assert not workplace.database.exists()


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_flag_that_makes_no_sense_beside_a_stored_experiment_is_refused(
    value: str, door: Doorway, finished_runs: Workplace
) -> None:
    visit = door.run(finished_runs, "batch", "submit", f"{TWIN}2", "--max-cost", value).expect(2)
    assert visit.err.startswith("narrun: flags: `max_cost` must be ")
    assert visit.err.count("\n") == 1


def test_a_pipe_in_place_of_the_database_is_refused_and_not_waited_for(door: Doorway, workplace: Workplace) -> None:
    os.mkfifo(workplace.directory / "pipe.db")
    assert "not a regular file" in door.run(workplace, "list", "--db", "pipe.db").expect(74).err


@pytest.mark.parametrize("arguments", [("\udcff.csv",), ("a\nb.csv",), ("cases.csv", "--sheet", "\udcff")])
def test_a_name_that_cannot_be_stored_is_refused(
    arguments: tuple[str, ...], door: Doorway, workplace: Workplace
) -> None:
    visit = door.run(workplace, "ingest", *arguments).expect(2)
    assert visit.err.startswith("narrun: ingest: `")
    assert visit.err.count("\n") == 1
    assert not workplace.database.exists()
