"""`narrun metrics` and `narrun compare` on real databases: what they print, what they refuse, what they leave alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_cohorts import Rates, draw_cohort, make_row
from made_up_databases import CANARY, Database
from statsmodels.stats.proportion import proportion_confint
from typer.testing import CliRunner

from narrun_async.app.databases import reading
from narrun_async.app.evaluating import lines_at_the_end
from narrun_async.cli.program import app
from narrun_async.errors import ConfigurationError, NarrunError, UsageError
from narrun_async.models import CohortRow, ExperimentId
from narrun_async.stores.sqlite.schema import NARRATIVE_RESULTS, SOURCE_NARRATIVES

REPOSITORY = Path(__file__).resolve().parents[2]
Call = Callable[..., str]


@pytest.fixture
def rows() -> Sequence[CohortRow]:
    return draw_cohort(Rates(n_incidents=120, prevalence=0.3, labelled=0.7, failed=0.04, likeness=0.3), seed=6)


@pytest.fixture
def database(tmp_path: Path, build: Any, rows: Sequence[CohortRow]) -> Database:
    return Database(tmp_path / "experiments.db", build, rows)


@pytest.fixture
def call(database: Database) -> Call:
    """A command in this process; what it raises is raised here, as `main` would explain it."""

    def called(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--db", str(database.path)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    return called


def find(report: dict[str, Any], level: str) -> dict[str, Any]:
    return next(one for one in report["levels"] if one["level"] == level)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_counts_what_the_rows_say_and_writes_nothing(database: Database, call: Call) -> None:
    wanted = database.add(1)
    before = database.digest()
    report = json.loads(call("metrics", wanted, "--json"))
    judged = [row for row in database.rows if row.detected is not None and row.manual_flag_ind is not None]
    found = find(report, "narratives")
    cells = {
        "tp": sum(row.detected == 1 and row.manual_flag_ind == 1 for row in judged),
        "fp": sum(row.detected == 1 and row.manual_flag_ind == 0 for row in judged),
        "fn": sum(row.detected == 0 and row.manual_flag_ind == 1 for row in judged),
        "tn": sum(row.detected == 0 and row.manual_flag_ind == 0 for row in judged),
    }
    assert found["confusion"] == {**cells, "n_units": len(judged)}
    sensitivity = found["performance"]["sensitivity"]
    low, high = proportion_confint(cells["tp"], cells["tp"] + cells["fn"], method="wilson")
    assert (sensitivity["interval"]["low"], sensitivity["interval"]["high"]) == pytest.approx((low, high), abs=1e-9)
    flow = report["flow"]
    assert flow["n_eligible"] == len(database.rows)
    assert flow["errors"] == {"timeout": sum(row.error_category is not None for row in database.rows)}
    assert (flow["n_placeholders"], flow["skipped"], flow["n_copied"]) == (None, {}, 0)
    assert report["subject"]["is_simulated"] is True
    assert database.digest() == before


def test_metrics_for_people_names_every_denominator_and_says_that_it_is_simulated(
    database: Database, call: Call
) -> None:
    told = call("metrics", database.add(1), "--bootstrap", "200")
    for title in ("WHAT BECAME OF THE NARRATIVES", "EVERY NARRATIVE", "EVERY INCIDENT", "HOW COMMON IS IT?"):
        assert title in told
    assert "SIMULATED" in told
    for line in ("sensitivity", "specificity", "PPV", "NPV", "agreement  "):
        row = next(one for one in told.splitlines() if one.strip().startswith(line))
        assert re.search(r"0\.\d{3} +\d+ of \d+ +0\.\d{3} to [01]\.\d{3}", row), row
    assert "200 resamples, seed 1" in told


def test_no_text_comes_out_of_either_command(database: Database, call: Call) -> None:
    first, second = database.add(1), database.add(2, [*reversed(database.rows)])
    for arguments in (["metrics", first], ["metrics", first, "--json"], ["compare", first, second, "--limit", "999"]):
        assert CANARY not in call(*arguments, "--bootstrap", "50")


def test_the_seed_decides_and_no_resamples_means_none(database: Database, call: Call) -> None:
    wanted = database.add(1)
    once, again = (call("metrics", wanted, "--json", "--bootstrap", "300") for _ in range(2))
    other = call("metrics", wanted, "--json", "--bootstrap", "300", "--seed", "2")
    assert once == again != other
    without = find(json.loads(call("metrics", wanted, "--json", "--bootstrap", "0")), "narratives")["performance"]
    assert without["f1"]["interval"] is None and without["sensitivity"]["interval"] is not None


def test_columns_that_other_versions_add_are_read_where_they_are(database: Database, call: Call) -> None:
    wanted = database.add(1)
    added = {"text_flags": SOURCE_NARRATIVES, "skip_reason": NARRATIVE_RESULTS, "copied_from": NARRATIVE_RESULTS}
    for name, columns in added.items():
        if name not in columns:
            table = "source_narratives" if columns is SOURCE_NARRATIVES else "narrative_results"
            database.change(f"ALTER TABLE {table} ADD COLUMN {name} TEXT")
    first, second, third = [row for row in database.rows if row.detected is not None][:3]
    database.change(
        "UPDATE source_narratives SET text_flags = ''",
        f"UPDATE source_narratives SET text_flags = 'placeholder' WHERE incident_id = '{first.incident_id}'"
        f" AND narrative_type = '{first.narrative_type}'",
        "UPDATE narrative_results SET skip_reason = 'placeholder', detected = NULL"
        f" WHERE incident_id = '{first.incident_id}' AND narrative_type = '{first.narrative_type}'",
        f"UPDATE narrative_results SET copied_from = 1 WHERE incident_id = '{third.incident_id}'"
        f" AND narrative_type = '{third.narrative_type}'",
        "UPDATE narrative_results SET detected = NULL"
        f" WHERE incident_id = '{second.incident_id}' AND narrative_type = '{second.narrative_type}'",
    )
    flow = json.loads(call("metrics", wanted, "--json", "--bootstrap", "0"))["flow"]
    assert (flow["n_placeholders"], flow["skipped"], flow["n_copied"]) == (1, {"placeholder": 1}, 1)
    assert flow["errors"]["no_verdict"] == 1


def test_the_predecessors_headline_is_corrected_from_counts_that_are_given(
    tmp_path: Path, build: Any, call: Call, database: Database
) -> None:
    """5.65 % of 35,312, 42/48 and 342/356."""
    big = Database(tmp_path / "big.db", build, [make_row(f"c{n}", detected=int(n < 1995)) for n in range(35312)])
    arguments = ["metrics", big.add(1), "--sensitivity", "42/48", "--specificity", "342/356", "--bootstrap", "0"]
    result = CliRunner().invoke(app, [*arguments, "--json", "--db", str(big.path)], catch_exceptions=False)
    found = find(json.loads(result.stdout), "narratives")["prevalence"]
    assert found["apparent"]["value"] == pytest.approx(0.0565, abs=5e-5)
    assert found["corrected"]["value"] == pytest.approx(0.0205, abs=1e-4)
    interval = found["corrected"]["interval"]
    assert interval["low"] == 0 and 0.04 < interval["high"] < 0.046
    told = CliRunner().invoke(app, [*arguments, "--db", str(big.path)], catch_exceptions=False).stdout
    assert "THE CORRECTED INTERVAL INCLUDES ZERO" in told
    assert "from the command line" in told


def test_sensitivity_and_specificity_may_come_from_another_experiment(database: Database, call: Call) -> None:
    labelled, other = database.add(1), database.add(2, temperature=1.0)
    report = json.loads(call("metrics", other, "--validated-by", labelled, "--json", "--bootstrap", "0"))
    own = find(json.loads(call("metrics", labelled, "--json", "--bootstrap", "0")), "incidents")["prevalence"]
    found = find(report, "incidents")["prevalence"]
    assert found["validity"]["sensitivity"] == own["validity"]["sensitivity"]
    assert "experiment 00000001" in found["validity"]["source"]
    assert any("model.temperature" in remark for remark in report["remarks"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sensitivity", "42/48"], "--sensitivity and --specificity go together"),
        (["--sensitivity", "0.875", "--specificity", "342/356"], "must be a count of a count"),
        (["--sensitivity", "49/48", "--specificity", "342/356"], "must be a count of a count"),
        (["--sensitivity", "0/0", "--specificity", "342/356"], "must be a count of a count"),
        (["--validated-by", "00000001", "--sensitivity", "1/2", "--specificity", "1/2"], "both say where"),
        (["--of-incidents"], "which are not given"),
        (["--validated-by", "99999999"], "no experiment answers"),
        (["--validated-by", "00000001"], "names the experiment itself"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_one_sentence(
    database: Database, call: Call, arguments: Sequence[str], sentence: str
) -> None:
    wanted = database.add(1)
    with pytest.raises(UsageError, match=re.escape(sentence)) as refused:
        call("metrics", wanted, *arguments)
    assert "\n" not in str(refused.value)


def test_an_experiment_that_cannot_validate_is_refused(database: Database, call: Call) -> None:
    wanted, other = database.add(1), database.add(2)
    database.change(f"DELETE FROM narrative_results WHERE experiment_id = '{other}'")
    with pytest.raises(UsageError, match="tells no sensitivity"):
        call("metrics", wanted, "--validated-by", other)


def test_of_an_experiment_of_the_predecessor_the_rows_are_counted(database: Database, call: Call) -> None:
    wanted, answered_later = database.add(1), database.rows[5:]
    own = json.loads(call("metrics", wanted, "--json", "--bootstrap", "0"))
    database.change(
        "UPDATE experiments SET data_checksum = NULL, cohort_last_narrative_id = NULL, config_sha256 = NULL",
        f"DELETE FROM source_narratives WHERE incident_id = '{answered_later[0].incident_id}'",
    )
    found = json.loads(call("metrics", wanted, "--json", "--bootstrap", "0"))
    assert [one["confusion"] for one in found["levels"]] == [one["confusion"] for one in own["levels"]]
    assert "recorded no cohort" in found["remarks"][0]


def test_an_experiment_without_any_row_is_told_as_such(database: Database, call: Call) -> None:
    wanted = database.add(1)
    database.change("DELETE FROM narrative_results")
    told = call("metrics", wanted)
    assert f"{len(database.rows)} narratives have no row yet" in told
    assert "no measure is defined" in told


# --- compare ---------------------------------------------------------------------------------------------------------


def answered_again(rows: Sequence[CohortRow], every: int) -> list[CohortRow]:
    return [
        replace(row, detected=1 - row.detected) if row.detected is not None and not number % every else row
        for number, row in enumerate(rows)
    ]


def test_compare_counts_common_cases_and_tells_what_sets_experiments_apart(database: Database, call: Call) -> None:
    first = database.add(1)
    second = database.add(2, answered_again(database.rows, 9), temperature=1.0)
    third = database.add(3, answered_again(database.rows, 25), run_seed=99)
    report = json.loads(call("compare", first, second, third, "--json", "--bootstrap", "300"))
    assert report["varying"] == ["model.temperature", "run.seed"]
    assert [pair["is_repetition"] for pair in report["levels"][0]["pairs"]] == [False, True, False]
    assert report["luck"]["n_configurations"] == 3
    assert report["levels"][0]["n_common"] == sum(row.detected is not None for row in database.rows)
    assert len(report["discordant"]) == min(20, report["n_discordant"])
    told = call("compare", first, second, third, "--bootstrap", "300", "--limit", "3")
    for title in ("WHAT IS COMPARED", "AGAINST THE LABELS", "HOW MUCH OF THE BEST IS LUCK?", "BY SETTINGS"):
        assert title in told
    assert "test-retest" in told
    assert f"and {report['n_discordant'] - 3:,} more" in told


def test_many_configurations_on_one_labelled_file_are_warned_of(database: Database, call: Call) -> None:
    ids = [database.add(number, answered_again(database.rows, 7 + number)) for number in range(1, 7)]
    told = call("compare", *ids[:2], "--bootstrap", "100")
    assert "6 experiments of this database were judged on labels of this file" in told
    assert "WARNING: the best of many looks better than it is" in told


def test_prompts_set_experiments_apart_by_their_hash_and_are_never_shown(database: Database, call: Call) -> None:
    first, second = database.add(1), database.add(2, system_prompt=f"You are {CANARY}.")
    told = call("compare", first, second, "--bootstrap", "0")
    assert re.search(r"prompt\.system_prompt sha256 [0-9a-f]{8}", told)
    assert CANARY not in told


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (["00000001"], "at least two"),
        (["00000001", "00000001"], "named twice"),
        (["00000001", "77777777"], "no experiment"),
    ],
)
def test_a_comparison_with_itself_alone_or_with_nobody_is_refused(
    database: Database, call: Call, wanted: Sequence[str], sentence: str
) -> None:
    database.add(1)
    with pytest.raises(NarrunError, match=sentence) as refused:
        call("compare", *wanted)
    assert isinstance(refused.value, UsageError)


# --- at the end of a run ---------------------------------------------------------------------------------------------


def test_the_end_of_a_run_tells_a_few_measures_as_the_command_does(database: Database, call: Call) -> None:
    wanted = database.add(1)

    async def told() -> Sequence[str]:
        async with reading(database.path) as store:
            return await lines_at_the_end(store, await store.load_experiment(ExperimentId(wanted)))

    lines = asyncio.run(told())
    report = json.loads(call("metrics", wanted, "--json", "--bootstrap", "0"))
    for level in ("narratives", "incidents"):
        sensitivity = find(report, level)["performance"]["sensitivity"]
        interval = sensitivity["clustered"] or sensitivity["interval"]
        shown = f"{sensitivity['value']:.3f} ({interval['low']:.3f}-{interval['high']:.3f})"
        assert shown in next(line for line in lines if line.startswith("sensitivity"))
    assert all(len(line) <= 80 for line in lines)


def test_the_end_of_a_run_tells_nothing_more_where_nothing_is_labelled(database: Database) -> None:
    wanted = database.add(1)
    database.change("UPDATE source_narratives SET manual_flag_ind = NULL, manual_flag = NULL")

    async def told() -> Sequence[str]:
        async with reading(database.path) as store:
            return await lines_at_the_end(store, await store.load_experiment(ExperimentId(wanted)))

    assert asyncio.run(told()) == []


# --- without the extra -----------------------------------------------------------------------------------------------

#: a program in which none of the packages of the extra can be found
WITHOUT_THE_EXTRA = """
import sys
for name in ("numpy", "pandas", "scipy", "sklearn", "statsmodels", "matplotlib", "jinja2"):
    sys.modules[name] = None
from narrun_async.__main__ import main
sys.argv = ["narrun", *sys.argv[1:]]
main()
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("NARRUN_", "EXPERIMENT"))}


def without_the_extra(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    inherited = clean_environment()
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *arguments],
        cwd=cwd,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_the_extra_the_commands_end_with_one_sentence_and_the_others_work(database: Database) -> None:
    wanted, place = database.add(1), database.path.parent
    for command in (["metrics", wanted], ["compare", wanted, database.add(2)], ["report", wanted]):
        refused = without_the_extra(*command, "--db", str(database.path), cwd=place)
        assert refused.returncode == ConfigurationError.exit_code == 78
        assert refused.stderr.count("\n") == 1
        assert "`make analysis` installs it" in refused.stderr
    shown = without_the_extra("show", wanted, "--db", str(database.path), cwd=place)
    assert shown.returncode == 0, shown.stderr


def test_a_run_ends_the_same_without_the_extra_but_for_the_intervals(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    (tmp_path / "data").mkdir()
    shutil.copy(REPOSITORY / "data" / "synthetic_narratives.xlsx", tmp_path / "data")
    arguments = ("run", "configs/exp_101_smoke.yaml", "--max-narratives", "16", "--concurrency", "16")
    without = without_the_extra(*arguments, "--db", "without.db", cwd=tmp_path)
    assert without.returncode == 0, without.stderr
    with_it = subprocess.run(
        [sys.executable, "-m", "narrun_async", *arguments, "--db", "with.db"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert with_it.returncode == 0, with_it.stderr
    plain, more = without.stdout.splitlines(), with_it.stdout.splitlines()
    assert "95 % intervals" in with_it.stdout
    assert plain == [line for line in more if line in plain]
    assert plain[-1] == more[-1] == "status     completed: completed"


def test_starting_the_program_imports_nothing_of_the_extra() -> None:
    """numpy apart, which openpyxl imports by itself where it finds it."""
    asked = (
        "import sys, narrun_async.cli.program, narrun_async.app.running, narrun_async.app.evaluating,"
        " narrun_async.app.comparing, narrun_async.app.documenting;"
        " print({'scipy', 'sklearn', 'statsmodels', 'pandas', 'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "set()"


# --- how large -------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("metrics", "--bootstrap", "0"), ("metrics",), ("report", "--html", "r.html")], ids=" ".join
)
def test_42_000_results_take_less_than_500_mb(
    tmp_path: Path, build: Any, command: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = draw_cohort(Rates(n_incidents=23_500, failed=0.02, labelled=0.3), seed=1)
    assert len(rows) > 42_000
    large = Database(tmp_path / "experiments.db", build, rows)
    words = (*command, large.add(1), "--db", str(large.path))
    arguments = [sys.executable, "-m", "narrun_async", *words]
    with subprocess.Popen(arguments, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    peak_mb = used.ru_maxrss / 1024
    with capsys.disabled():
        print(f"{' '.join(command)}: {peak_mb:.0f} MB, {used.ru_utime + used.ru_stime:.1f} s of CPU")
    assert (process.returncode, peak_mb < 500) == (0, True)
