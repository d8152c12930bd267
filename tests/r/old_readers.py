"""The readers of the R project, run by real R over its own files, over what becomes of them, and over a file of ours.

`make test-r` runs it; `make test` does not, for it needs R. Where R is missing it fails: a skip would prove nothing.
The scripts beside this file read the columns that the old ones read, and know nothing of this program.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import Endpoint, Workplace, running_endpoint
from r_databases import dump, writing_legacy

from narrun_async.models import read_odd_id

HERE = Path(__file__).parent
HOW_TO_INSTALL = "`make test-r` needs R with RSQLite (Debian: apt install r-base-core r-cran-rsqlite)"

WHOLE, TWICE, STOPPED = (f"{letter}1111111-2222-4333-8444-555555555555" for letter in "abc")
INCIDENTS = 14
#: an exit code: the endpoint refuses some narratives each time
WITH_ERRORS = 1
KINDS = ("cme", "le")
#: what R made of 100000
ODD_ID = "1e+05"

Table = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class R:
    """Real R, and how often it was asked."""

    versions: str
    answers: list[str] = field(default_factory=list)

    def read(self, script: str, *arguments: str | Path) -> Table:
        done = subprocess.run(
            ["Rscript", "--vanilla", HERE / script, *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"
        self.answers.append(script)
        return list(csv.DictReader(io.StringIO(done.stdout)))

    def read_all(self, database: Path, experiment_id: str) -> dict[str, Table]:
        """What each reader of one experiment says."""
        return {name: self.read(f"{name}.R", database, experiment_id) for name in ("show", "disagreements", "errors")}

    def read_list(self, database: Path) -> dict[str, dict[str, str]]:
        return {row["experiment_id"]: row for row in self.read("list.R", database)}


@pytest.fixture(scope="session")
def r() -> Iterator[R]:
    if shutil.which("Rscript") is None:
        pytest.fail(f"Rscript is not installed: {HOW_TO_INSTALL}")
    versions = 'c(R.version.string, format(packageVersion("RSQLite")), RSQLite::rsqliteVersion()[[2]])'
    told = subprocess.run(["Rscript", "--vanilla", "-e", f"writeLines({versions})"], capture_output=True, text=True)
    if told.returncode != 0:
        pytest.fail(f"R has no RSQLite: {HOW_TO_INSTALL}\n{told.stderr}")
    real = R(versions="{}, RSQLite {} with SQLite {}".format(*told.stdout.splitlines()))
    yield real
    print(f"\n{datetime.datetime.now(datetime.UTC).date()}: {real.versions}; {len(real.answers)} readings")


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("endpoint"), "--latency-ms", "1", "--fault", "refusal=0.1") as one:
        yield one


def incident(number: int) -> str:
    return ODD_ID if number == 1 else str(300000 + number)


def write_r_database(path: Path, generation: str, url: str, *, with_duplicates: bool) -> None:
    """An experiment that is complete, one that was stopped, and one that is complete and has duplicates.

    :param with_duplicates: False: as if the duplicates had never been written
    """
    with writing_legacy(path, generation) as file:
        for number in range(1, INCIDENTS + 1):
            for kind in KINDS:
                file.add_narrative(incident(number), kind, manual_flag_ind=int(number % 3 == 0))
        done = {"status": "completed", "n_narratives_total": 28, "n_narratives_processed": 28, "n_true_positive": 6}
        done |= {"total_runtime_sec": 126.5, "accuracy": 0.7037037037037037, "f1_ipv": 0.6, "notes": "as R left it, ä"}
        file.add_experiment(WHOLE, experiment_name="complete", **done)
        file.add_experiment(STOPPED, experiment_name="stopped", api_url=url)
        if generation == "a":
            file.add_experiment(TWICE, experiment_name="with duplicates", **done)
        for number in range(1, INCIDENTS + 1):
            for kind in KINDS:
                manual = int(number % 3 == 0)
                one = {"manual_flag_ind": manual, "row_num": number, "response_sec": 4.5 + number / 7}
                answer = one | {"detected": int(number % 4 < 2 or manual), "confidence": number / 15}
                is_error = (number, kind) == (5, "le")
                file.add_result(WHOLE, incident(number), kind, **(one | {"error_occurred": 1} if is_error else answer))
                if number <= 6:
                    file.add_result(STOPPED, incident(number), kind, **(one | {"error_occurred": int(number == 2)}))
                if generation != "a":
                    continue
                # An answer, then an attempt in vain; or two errors; or an answer and another one after it.
                if with_duplicates and number == 4:
                    file.add_result(TWICE, incident(number), kind, **(one | {"error_occurred": 1}))
                if with_duplicates and number == 6:
                    file.add_result(TWICE, incident(number), kind, **(answer | {"detected": 1 - answer["detected"]}))
                file.add_result(TWICE, incident(number), kind, **answer)
                if with_duplicates and number == 7:
                    file.add_result(TWICE, incident(number), kind, **(one | {"error_occurred": 1}))


def narrun(workplace: Workplace, *arguments: str, may_end_with: int = 0) -> Any:
    """What a command says on standard output, as JSON where that was asked for."""
    done = workplace.run(*arguments)
    assert done.code in (0, may_end_with), done.err
    return json.loads(done.out) if "--json" in arguments else done.out


def with_ids_repaired(tables: Mapping[str, Table], changes: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """What readers said, in the ids of today, as the record of the repair has it."""
    today = {one["old_value"]: one["new_value"] for one in changes if one["column_name"] == "incident_id"}

    def repaired(row: dict[str, str]) -> dict[str, str]:
        return row | {name: today.get(value, value) for name, value in row.items() if name == "incident_id"}

    return {
        name: sorted(map(repaired, table), key=lambda row: (row.get("incident_id"), row.get("narrative_type")))
        for name, table in tables.items()
    }


def assert_measured_alike(shown: Mapping[str, str], summary: Mapping[str, Any]) -> None:
    """What R makes of the rows, and what we say of them."""
    counts, confusion, metrics = summary["counts"], summary["confusion"], summary["metrics"]
    whole = {
        "rows": counts["n_success"] + counts["n_errors"],
        "errors": counts["n_errors"],
        "positive": summary["n_detected"],
        "negative": summary["n_not_detected"],
        "labelled": summary["n_labelled"],
        **{name: confusion[name] for name in ("tp", "fp", "fn", "tn")},
    }
    assert {name: int(shown[name]) for name in whole} == whole
    for name in ("accuracy", "precision", "recall", "f1"):
        expected = metrics[name]
        assert (shown[name] == "") if expected is None else float(shown[name]) == pytest.approx(expected, rel=1e-11)


def compare_exports(workplace: Workplace, one: str, other: str) -> dict[str, int]:
    """The same as compare.R, from the files that `narrun export` writes."""
    answers = []
    for experiment in (one, other):
        narrun(workplace, "export", experiment, "--format", "csv")
        with (workplace.directory / "exports" / f"{experiment}.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["error_occurred"] == "0"]
        answers.append({(row["incident_id"], row["narrative_type"]): row["detected"] for row in rows})
    common = answers[0].keys() & answers[1].keys()
    pairs = [(answers[0][key], answers[1][key]) for key in common]
    names = {"both_yes": ("1", "1"), "both_no": ("0", "0"), "only_one": ("1", "0"), "only_other": ("0", "1")}
    return {"common": len(common)} | {name: pairs.count(pair) for name, pair in names.items()}


# --- its own files, before and after ---------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["a", "b", "c"])
def test_its_readers_find_the_same_numbers_where_nothing_was_moved(
    r: R, endpoint: Endpoint, tmp_path: Path, generation: str
) -> None:
    workplace = Workplace(directory=tmp_path)
    database = workplace.database
    write_r_database(database, generation, endpoint.url, with_duplicates=True)
    listed, whole, stopped = r.read_list(database), r.read_all(database, WHOLE), r.read_all(database, STOPPED)
    compared = r.read("compare.R", database, WHOLE, STOPPED)
    assert len(whole["disagreements"]) > 2
    assert {row["incident_id"] for row in whole["disagreements"]} > {ODD_ID, "300004"}
    assert len(whole["errors"]) == 1

    narrun(workplace, "migrate")

    assert r.read_list(database) == listed
    assert (r.read_all(database, WHOLE), r.read_all(database, STOPPED)) == (whole, stopped)
    assert r.read("compare.R", database, WHOLE, STOPPED) == compared

    narrun(workplace, "migrate", "--fix-ids")
    narrun(workplace, "resume", STOPPED, may_end_with=WITH_ERRORS)
    narrun(workplace, "resume", STOPPED, "--retry-errors-only", may_end_with=WITH_ERRORS)

    assert {name: row for name, row in r.read_list(database).items() if name != STOPPED} == {
        name: row for name, row in listed.items() if name != STOPPED
    }
    changes = dump(database)["legacy_changes"]
    repaired = r.read_all(database, WHOLE)
    assert repaired == with_ids_repaired(whole, changes)
    assert {row["incident_id"] for row in repaired["disagreements"]} > {"100000", "300004"}
    # the one that went on: what R makes of its rows is what we say of them, and R's own are among them
    now = r.read_all(database, STOPPED)
    assert_measured_alike(now["show"][0], narrun(workplace, "show", STOPPED, "--json")["summary"])
    assert int(now["show"][0]["rows"]) == 2 * INCIDENTS
    assert now["show"][0]["user_template"] == stopped["show"][0]["user_template"]
    (row,) = r.read("compare.R", database, WHOLE, STOPPED)
    expected = compare_exports(workplace, WHOLE, STOPPED)
    assert {name: int(row[name]) for name in expected} == expected
    assert narrun(workplace, "verify", "--json")["holds"]
    print(f"\ngeneration ({generation}): list, show, compare, disagreements, errors equal before and after")


def test_its_readers_find_what_the_report_says_where_duplicates_were_moved(
    r: R, endpoint: Endpoint, tmp_path: Path
) -> None:
    workplace, twin = Workplace(directory=tmp_path), tmp_path / "without_duplicates.db"
    database = workplace.database
    write_r_database(database, "a", endpoint.url, with_duplicates=True)
    write_r_database(twin, "a", endpoint.url, with_duplicates=False)
    before, listed = r.read_all(database, TWICE), r.read_list(database)

    narrun(workplace, "migrate")

    (report,) = narrun(workplace, "verify", "--json")["inherited"]["set_aside"]
    after = r.read_all(database, TWICE)
    (was,), (is_now,) = before["show"], after["show"]
    assert (int(was["rows"]), int(is_now["rows"])) == (report["n_before"], report["n_after"])
    assert int(was["rows"]) - int(is_now["rows"]) == report["n_moved"] == 6
    assert int(was["errors"]) - int(is_now["errors"]) == 4  # two of what was moved were answers
    assert after == r.read_all(twin, TWICE)
    assert r.read("compare.R", database, WHOLE, TWICE) == r.read("compare.R", twin, WHOLE, TWICE)
    assert r.read_list(database) == listed
    print(
        f"\ngeneration (a), duplicates: {was['rows']} rows before, {report['n_moved']} moved, {is_now['rows']} remain"
    )


# --- a file of ours --------------------------------------------------------------------------------------------------


def test_its_readers_find_our_numbers_in_a_file_of_ours(r: R, endpoint: Endpoint, tmp_path: Path) -> None:
    workplace = Workplace(directory=tmp_path)
    narratives = workplace.write_narratives(80)
    ids = []
    for name, temperature in (("first", 0.2), ("second", 0.9)):
        config = workplace.write_config(
            url=endpoint.url, narratives=narratives, name=name, model__temperature=temperature
        )
        narrun(workplace, "run", str(config), may_end_with=WITH_ERRORS)
        ids.append(next(one["experiment_id"] for one in narrun(workplace, "list", "--json") if one["name"] == name))
    database = workplace.database

    listed = r.read_list(database)
    for experiment in narrun(workplace, "list", "--json"):
        row = listed[experiment["experiment_id"]]
        assert (row["experiment_name"], row["status"]) == (experiment["name"], "completed")
        assert int(row["n_narratives_total"]) == int(row["n_narratives_processed"]) == 80
        assert float(row["temperature"]) == experiment["columns"]["temperature"]
        assert float(row["f1_ipv"]) == pytest.approx(experiment["columns"]["f1_ipv"], rel=1e-11)
    for experiment_id in ids:
        said = r.read_all(database, experiment_id)
        summary = narrun(workplace, "show", experiment_id, "--json")["summary"]
        assert_measured_alike(said["show"][0], summary)
        assert len(said["errors"]) == summary["counts"]["n_errors"] > 0
        assert all(row["error_message"] for row in said["errors"])
        confusion = summary["confusion"]
        assert len(said["disagreements"]) == confusion["fp"] + confusion["fn"]
        assert all(int(row["characters"]) > 0 for row in said["disagreements"])
        listed_f1 = listed[experiment_id]["f1_ipv"]
        assert float(said["show"][0]["f1"]) == pytest.approx(float(listed_f1), rel=1e-11)
    (compared,) = r.read("compare.R", database, *ids)
    expected = compare_exports(workplace, *ids)
    assert {name: int(compared[name]) for name in expected} == expected
    print("\na file of ours: list, show, compare, disagreements, errors equal to what narrun says")


# --- its numbers -----------------------------------------------------------------------------------------------------


def test_every_number_that_r_writes_with_an_exponent_is_known_again(r: R) -> None:
    told = subprocess.run(["Rscript", "--vanilla", HERE / "numbers.R"], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in told.stdout.splitlines()]
    n_odd = 0
    for digits, written in pairs:
        odd = read_odd_id(written)
        assert (written if odd is None else odd.stands_for) == digits
        n_odd += odd is not None
    assert n_odd > 300
    print(f"\n{len(pairs)} numbers below 1e15 as R writes them: {n_odd} with an exponent, all known again")
