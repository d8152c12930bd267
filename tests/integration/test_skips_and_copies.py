"""Skips, copies and screening through the program's own commands, over real SQLite and an endpoint on a socket."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from narrun_async.app.examining import diagnose, verify_database
from narrun_async.app.foretelling import estimate_experiment
from narrun_async.app.loading import ingest_file, screen_database
from narrun_async.app.planning import RunRequest
from narrun_async.app.privacy import scrub_database
from narrun_async.app.running import preview_run, run_experiment
from narrun_async.app.showing import look_at_status, show_experiment
from narrun_async.config import DataSection
from narrun_async.errors import BadInputError, ConfigurationError, ExitCode, UsageError
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.endpoint import SimulatedEndpoint
from narrun_async.stores.sqlite.statements import COPIED_COLUMNS

FRUGAL = {"skip_placeholders": True, "ask_identical_once": True}
PHRASES = ("No report available.", "N/A", "See CME narrative.")
ACCOUNTS = tuple(
    f"The decedent {event}; account {number} ends here."
    for number in range(6)
    for event in ("was found by a relative", "had a protective order against a former partner")
)
#: every account, four placeholders, and five repeats
TEXTS = (*ACCOUNTS, *PHRASES, PHRASES[0], *ACCOUNTS[:4], ACCOUNTS[1])
N_ASKED, N_SKIPPED, N_COPIED = 12, 4, 5
N_ALL = len(TEXTS)


@dataclass(kw_only=True)
class Desk:
    """A directory from which the commands are given."""

    directory: Path
    endpoint: SimulatedEndpoint
    told: list[str] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.directory / "experiments.db"

    @property
    def table(self) -> Path:
        return self.directory / "door.csv"

    def write_table(self, texts: Sequence[str] = TEXTS) -> None:
        lines = ["incident_id,narrative_type,narrative_text,manual_flag_ind"]
        for number, text in enumerate(texts):
            label = "" if number % 5 == 4 else number % 2
            lines.append(f'{number // 2},{"le" if number % 2 else "cme"},"{text}",{label}')
        self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write_config(self, *, name: str = "frugal", placeholder_rules: Path | None = None, **run: Any) -> Path:
        data = {"file": str(self.table)}
        if placeholder_rules is not None:
            data["placeholder_rules"] = str(placeholder_rules)
        sections = {
            "experiment": {"name": name},
            "model": {"name": "m", "provider": "vllm", "api_url": self.endpoint.url, "temperature": 0.0},
            "prompt": {"version": "v1", "user_template": "Text: <<TEXT>>"},
            "data": data,
            "run": {"concurrency": 4, "database": str(self.database)} | run,
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(sections), encoding="utf-8")
        return path

    def write_rules(self, *, phrase: str = "n a") -> Path:
        rule = {"name": "mine", "reason": "made up", "patterns": [phrase]}
        path = self.directory / "rules.yaml"
        path.write_text(yaml.safe_dump({"name": "my-rules", "placeholders": [rule], "near_empty_below": 0}))
        return path

    async def run(self, config: Path | None, **request: Any) -> ExitCode:
        self.told.clear()
        asked = RunRequest(
            config_file=config,
            database=self.database,
            log_root=self.directory / "logs",
            export_root=self.directory / "exports",
            **request,
        )
        return await run_experiment(asked, {}, tell=self.told.append, say=self.told.append, interactive=False)

    async def resume(self, **request: Any) -> ExitCode:
        (newest,) = self.ask("SELECT experiment_id FROM experiments ORDER BY rowid DESC LIMIT 1")
        return await self.run(None, resume=True, **newest, **request)

    async def preview(self, config: Path) -> str:
        told: list[str] = []
        await preview_run(RunRequest(config_file=config, database=self.database), {}, tell=told.append)
        return "\n".join(told)

    async def verify(self) -> None:
        found = await verify_database(self.database, None, as_json=False)
        assert found.exit_code is ExitCode.COMPLETED, "\n".join(found.lines)

    def ask(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(statement, values)]

    def ask_one(self, statement: str) -> Any:
        (row,) = self.ask(statement)
        return next(iter(row.values()))

    def change(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.database)) as db, db:
            for statement in statements:
                db.execute(statement)

    def forget_screening(self) -> None:
        """As an earlier version left the file."""
        self.change(
            "UPDATE source_narratives SET text_flags = NULL, same_text_as = NULL",
            "DELETE FROM screenings",
        )

    def count_kinds(self) -> Mapping[str, int]:
        return Counter(
            "skipped" if row["skip_reason"] else "copied" if row["copied_from"] else "asked"
            for row in self.ask("SELECT skip_reason, copied_from FROM narrative_results")
        )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with SimulatedEndpoint(Behaviour(latency_ms=0, flip_rate=0)) as endpoint:
        desk = Desk(directory=tmp_path, endpoint=endpoint)
        desk.write_table()
        yield desk


# --- runs ------------------------------------------------------------------------------------------------------------


async def test_nothing_changes_for_those_who_ask_for_nothing(desk: Desk) -> None:
    assert await desk.run(desk.write_config()) is ExitCode.COMPLETED
    assert desk.endpoint.stats().calls == N_ALL
    assert desk.count_kinds() == {"asked": N_ALL}
    assert not any("no call" in line or "skipped" in line for line in desk.told)
    await desk.verify()


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        pytest.param({"skip_placeholders": True}, {"asked": 17, "skipped": 4}, id="no placeholders"),
        pytest.param({"ask_identical_once": True}, {"asked": 15, "copied": 6}, id="no repeats"),
        pytest.param(FRUGAL, {"asked": N_ASKED, "skipped": N_SKIPPED, "copied": N_COPIED}, id="neither"),
    ],
)
async def test_what_is_not_to_be_asked_is_not(desk: Desk, run: Any, kinds: dict[str, int]) -> None:
    assert await desk.run(desk.write_config(**run)) is ExitCode.COMPLETED
    assert desk.endpoint.stats().calls == kinds["asked"]
    assert desk.count_kinds() == kinds
    await desk.verify()
    assert await desk.resume() is ExitCode.COMPLETED
    assert "nothing to do" in desk.told[0]


async def test_dry_run_estimate_and_run_foretell_the_same_before_and_after_loading(desk: Desk) -> None:
    config = desk.write_config(**FRUGAL)
    before = await desk.preview(config)
    said: list[str] = []
    request = RunRequest(config_file=config, database=desk.database)
    await estimate_experiment(request, {}, k=50, keep=False, tell=said.append, say=said.append)
    assert desk.endpoint.stats().calls == N_ASKED, "an estimate asked for what a run would not"
    assert not desk.database.exists()
    await ingest_file(desk.database, DataSection(file=str(desk.table)), dedupe=True)

    after = await desk.preview(config)

    assert before == after
    assert f"to do      {N_ASKED} of {N_ALL} narratives" in after
    assert f"no call    {N_SKIPPED} placeholders are skipped, by the rules narrun-1" in after
    assert f"no call    {N_COPIED} narratives have the text of another one" in after
    assert f"remaining   {N_ASKED} narratives" in said
    await estimate_experiment(request, {}, k=50, keep=False, tell=said.append, say=said.append)
    assert desk.endpoint.stats().calls == 2 * N_ASKED


async def test_an_estimate_that_is_kept_leaves_skips_and_copies_to_the_run_that_goes_on(desk: Desk) -> None:
    request = RunRequest(config_file=desk.write_config(**FRUGAL), database=desk.database, log_root=desk.directory)
    said: list[str] = []
    code = await estimate_experiment(request, {}, k=3, keep=True, tell=said.append, say=said.append)
    assert code is ExitCode.TEMPORARY
    assert f"remaining   {N_ASKED - 3} narratives" in said
    await desk.verify()
    assert await desk.resume() is ExitCode.COMPLETED
    assert desk.endpoint.stats().calls == N_ASKED
    assert desk.count_kinds() == {"asked": N_ASKED, "skipped": N_SKIPPED, "copied": N_COPIED}
    await desk.verify()


async def test_what_r_scripts_sum_up_is_what_they_summed_up_before(desk: Desk) -> None:
    """The old readers know neither skips nor copies: they add up `detected`, count errors, and compare with labels."""
    await desk.run(desk.write_config(name="plain"))
    await desk.run(desk.write_config(**FRUGAL))
    reader = """
    SELECT SUM(detected) AS n_yes, SUM(detected = 0) AS n_no, AVG(detected) AS rate, SUM(error_occurred) AS n_errors,
           SUM(is_true_positive) AS tp, SUM(is_false_positive) AS fp, SUM(is_false_negative) AS fn,
           SUM(is_true_negative) AS tn, COUNT(*) AS n_rows, COUNT(response_sec) AS n_timed
    FROM narrative_results AS r JOIN experiments AS e ON e.experiment_id = r.experiment_id WHERE e.experiment_name = ?
    """
    phrases = ", ".join(f"'{phrase}'" for phrase in PHRASES)
    (plain,) = desk.ask(f"{reader} AND narrative_text NOT IN ({phrases})", "plain")
    (frugal,) = desk.ask(reader, "frugal")
    assert (frugal["n_rows"], frugal["n_timed"], frugal["n_errors"]) == (N_ALL, N_ASKED, 0)
    assert frugal["n_yes"] > 0
    assert {n: frugal[n] for n in list(frugal)[:8]} == {n: plain[n] for n in list(plain)[:8]}
    columns = desk.ask("SELECT * FROM experiments WHERE experiment_name = 'frugal'")[0]
    assert (columns["n_positive_detected"], columns["n_negative_detected"]) == (frugal["n_yes"], frugal["n_no"])
    assert (columns["n_narratives_processed"], columns["n_narratives_skipped"]) == (N_ALL, N_SKIPPED)


async def test_a_copy_is_its_original_s_answer_under_its_own_label(desk: Desk) -> None:
    await desk.run(desk.write_config(**FRUGAL))
    pairs = desk.ask(
        "SELECT c.result_id AS copy_id, o.result_id AS original_id FROM narrative_results AS c"
        " JOIN source_narratives AS s ON s.narrative_id = c.copied_from JOIN narrative_results AS o"
        " ON o.incident_id = s.incident_id AND o.narrative_type = s.narrative_type"
    )
    rows = {row["result_id"]: row for row in desk.ask("SELECT * FROM narrative_results")}
    assert len(pairs) == N_COPIED
    for pair in pairs:
        copy, original = rows[pair["copy_id"]], rows[pair["original_id"]]
        assert {name: copy[name] for name in COPIED_COLUMNS} == {name: original[name] for name in COPIED_COLUMNS}
        assert copy["narrative_text"] == original["narrative_text"]
        label, said = copy["manual_flag_ind"], copy["detected"]
        expected = None if label is None else int(label == 1 and said == 1)
        assert copy["is_true_positive"] == expected
        assert (copy["tokens_used"], copy["response_sec"], original["tokens_used"] > 0) == (None, None, True)
    n_calls = desk.ask_one("SELECT COUNT(*) FROM attempts")
    assert n_calls == N_ASKED


async def test_errors_are_copied_and_follow_when_the_one_that_was_asked_gets_its_answer(desk: Desk) -> None:
    desk.endpoint.change_behaviour(always={"account 0 ends here": "malformed"})
    config = desk.write_config(**FRUGAL)
    assert await desk.run(config) is ExitCode.COMPLETED_WITH_ERRORS
    errors = desk.ask("SELECT * FROM narrative_results WHERE error_occurred = 1")
    assert Counter(row["copied_from"] is None for row in errors) == {True: 2, False: 3}
    assert {row["error_category"] for row in errors} == {"bad_json"}
    calls = desk.endpoint.stats().calls

    assert await desk.resume(retry_errors_only=True) is ExitCode.COMPLETED_WITH_ERRORS
    assert "to do      2 narratives, 4 calls at a time" in desk.told
    n_again = desk.endpoint.stats().calls - calls
    assert n_again == 4  # two narratives, each with its second try
    desk.endpoint.change_behaviour(always={})
    assert await desk.resume(retry_errors_only=True) is ExitCode.COMPLETED

    assert desk.endpoint.stats().calls == calls + n_again + 2
    assert desk.ask_one("SELECT COUNT(*) FROM narrative_results WHERE error_occurred = 1") == 0
    copies = desk.ask(
        "SELECT * FROM narrative_results WHERE copied_from IS NOT NULL AND first_error_message IS NOT NULL"
    )
    assert len(copies) == 3
    assert {row["run_id"] for row in copies} == {3}
    await desk.verify()


async def test_canaries_are_drawn_from_what_was_asked(desk: Desk) -> None:
    config = desk.write_config(max_tokens_total=1, **FRUGAL)
    assert await desk.run(config) is ExitCode.TEMPORARY
    await desk.verify()
    assert desk.count_kinds()["skipped"] == N_SKIPPED
    assert await desk.resume(overrides={"run.canaries": 50, "run.max_tokens_total": 10**6}) is ExitCode.COMPLETED
    asked_again = desk.ask(
        "SELECT s.narrative_text FROM canary_answers AS c JOIN source_narratives AS s USING (narrative_id)"
    )
    assert asked_again
    assert not {row["narrative_text"] for row in asked_again} & {*PHRASES}
    await desk.verify()


async def test_everybody_who_tells_of_an_experiment_tells_of_its_skips_and_copies(desk: Desk) -> None:
    await desk.run(desk.write_config(save_csv_json=True, **FRUGAL))
    assert f"{N_ALL} of {N_ALL}: {N_ALL - N_SKIPPED} answers, 0 errors, {N_SKIPPED} skipped" in "\n".join(desk.told)
    status = await look_at_status(desk.database, None, as_json=False)
    assert f"{N_SKIPPED} skipped, {N_COPIED} copied" in "\n".join(status.lines)
    shown = json.loads((await show_experiment(desk.database, "latest", as_json=True))[0])
    assert shown["counts"] == {
        "n_total": N_ALL,
        "n_success": N_ALL - N_SKIPPED,
        "n_errors": 0,
        "n_skipped": N_SKIPPED,
        "n_copied": N_COPIED,
        "n_missing": 0,
    }
    assert shown["summary"]["flow"]["sent"] == N_ASKED
    told = "\n".join(await show_experiment(desk.database, "latest", as_json=False))
    assert "placeholders by" in told and "narrun-1 (sha256 " in told
    exported = json.loads(next((desk.directory / "exports").glob("*.json")).read_text())["results"]
    assert Counter(row["skip_reason"] for row in exported) == {"placeholder": N_SKIPPED, None: N_ALL - N_SKIPPED}
    assert sum(row["copied_from"] is not None for row in exported) == N_COPIED
    logs = next((desk.directory / "logs").rglob("errors.log")).read_text()
    assert logs == ""


# --- screening -------------------------------------------------------------------------------------------------------


async def test_an_ingest_counts_what_is_doubtful_by_rules_that_it_names(desk: Desk) -> None:
    source = DataSection(file=str(desk.table))
    told = "\n".join(await ingest_file(desk.database, source, dedupe=True))
    assert f"{N_SKIPPED} placeholders, {N_COPIED} with the text of another narrative, by the rules narrun-1" in told
    assert "already in the database" in "\n".join(await ingest_file(desk.database, source, dedupe=True))
    assert desk.ask_one("SELECT COUNT(*) FROM screenings") == 1


async def test_texts_that_nobody_has_looked_at_are_looked_at_when_that_matters_and_not_before(desk: Desk) -> None:
    await ingest_file(desk.database, DataSection(file=str(desk.table)), dedupe=True)
    desk.forget_screening()
    config = desk.write_config(**FRUGAL)
    preview = await desk.preview(config)
    assert f"{N_ALL} of {N_ALL} narratives" in preview
    assert "narrun screen" in preview

    await desk.run(desk.write_config(name="plain"))
    assert desk.ask_one("SELECT COUNT(text_flags) FROM source_narratives") == 0, "nobody asked for that"
    await desk.run(config)

    assert desk.endpoint.stats().calls == N_ALL + N_ASKED
    told = "\n".join(await screen_database(desk.database, None))
    assert f"{N_ALL} of {N_ALL} texts screened by the rules narrun-1" in told
    assert f"{N_SKIPPED} placeholders" in told
    assert desk.ask_one("SELECT COUNT(*) FROM screenings") == 1
    await desk.verify()


async def test_rules_of_ones_own_decide_and_a_source_screened_by_others_is_not_run_by_mistake(desk: Desk) -> None:
    rules = desk.write_rules()
    await ingest_file(desk.database, DataSection(file=str(desk.table)), dedupe=True)
    config = desk.write_config(placeholder_rules=rules, skip_placeholders=True)
    for refused in (desk.run, desk.preview):
        with pytest.raises(ConfigurationError, match=r"narrun-1.*my-rules.*narrun screen --placeholder-rules"):
            await refused(config)
    plain = desk.write_config(name="plain", placeholder_rules=rules)
    await desk.run(plain)
    assert any(line.startswith("NOTE: the texts of") and "my-rules" in line for line in desk.told)

    await screen_database(desk.database, rules)
    assert await desk.run(config) is ExitCode.COMPLETED

    assert desk.count_kinds()["skipped"] == 1
    assert desk.ask("SELECT placeholder_rules FROM experiments")[1]["placeholder_rules"].startswith("my-rules (sha256 ")
    assert desk.ask_one("SELECT COUNT(*) FROM screenings") == 2


async def test_what_an_unfinished_experiment_skips_cannot_be_changed_under_it(desk: Desk) -> None:
    config = desk.write_config(max_tokens_total=1, **FRUGAL)
    assert await desk.run(config) is ExitCode.TEMPORARY
    rules = desk.write_rules()
    before = desk.ask("SELECT * FROM source_narratives")
    with pytest.raises(UsageError, match=r"is not complete, and skips what the rules narrun-1"):
        await screen_database(desk.database, rules)
    assert desk.ask("SELECT * FROM source_narratives") == before
    await screen_database(desk.database, None)  # by the same rules nothing changes
    assert await desk.resume(overrides={"run.max_tokens_total": 10**6}) is ExitCode.COMPLETED
    assert "1 placeholders" in "\n".join(await screen_database(desk.database, rules))
    await desk.verify()


async def test_a_rule_file_that_cannot_be_taken_changes_nothing(desk: Desk) -> None:
    rules = desk.write_rules(phrase="(c")
    config = desk.write_config(placeholder_rules=rules)
    with pytest.raises(ConfigurationError, match=r"rules\.yaml: rule 'mine'"):
        await desk.run(config)
    assert desk.ask("SELECT 1 FROM source_narratives") == []
    with pytest.raises(ConfigurationError, match=r"rules\.yaml: rule 'mine'"):
        await screen_database(desk.database, rules)
    found = await diagnose(RunRequest(config_file=config, database=desk.database), {})
    assert found.exit_code is ExitCode.CONFIGURATION
    assert any("rules.yaml: rule 'mine'" in line for line in found.lines)


async def test_scrubbed_texts_keep_their_flags_and_those_that_were_not_seen_get_none(desk: Desk) -> None:
    await desk.run(desk.write_config(**FRUGAL))
    await scrub_database(desk.database, dry_run=False, confirm=lambda _: None, tell=desk.told.append)
    shown = json.loads((await show_experiment(desk.database, "latest", as_json=True))[0])["summary"]["flow"]
    assert (shown["placeholder"], shown["skipped"], shown["copied"]) == (N_SKIPPED, N_SKIPPED, N_COPIED)
    await desk.verify()
    desk.forget_screening()

    told = "\n".join(await screen_database(desk.database, None))

    assert f"0 of {N_ALL} texts screened" in told
    assert f"{N_ALL} were scrubbed before anybody looked" in told
    assert desk.ask_one("SELECT COUNT(text_flags) FROM source_narratives") == 0
    assert desk.ask_one("SELECT COUNT(same_text_as) FROM source_narratives") > 0  # hashes are kept


async def test_copies_that_a_killed_run_did_not_make_are_made_although_the_texts_are_gone(desk: Desk) -> None:
    """Nothing would have to be sent for them."""
    await desk.run(desk.write_config(**FRUGAL))
    desk.change(
        "DELETE FROM narrative_results WHERE copied_from IS NOT NULL OR skip_reason IS NOT NULL",
        "UPDATE experiments SET status = 'running'",
    )
    for journal in (desk.directory / "logs").rglob("journal"):
        journal.unlink()
    await scrub_database(desk.database, dry_run=False, confirm=lambda _: None, tell=desk.told.append)
    assert await desk.resume() is ExitCode.COMPLETED
    assert desk.count_kinds() == {"asked": N_ASKED, "skipped": N_SKIPPED, "copied": N_COPIED}
    await desk.verify()


async def test_a_dry_run_is_refused_where_the_run_would_be(desk: Desk) -> None:
    """A new experiment over texts that are gone; a resume at an address that narratives may not go to."""
    config = desk.write_config(**FRUGAL)
    await desk.run(config)
    desk.change(
        "DELETE FROM narrative_results WHERE result_id = (SELECT MAX(result_id) FROM narrative_results"
        " WHERE copied_from IS NULL AND skip_reason IS NULL)",
        "UPDATE experiments SET status = 'running'",
    )
    for journal in (desk.directory / "logs").rglob("journal"):
        journal.unlink()
    away = RunRequest(resume=True, experiment_id="latest", database=desk.database, api_url="http://93.184.216.34/v1")
    with pytest.raises(ConfigurationError, match=r"private addresses only, and 93\.184\.216\.34 is none"):
        await run_experiment(away, {}, tell=desk.told.append, say=desk.told.append, interactive=False)
    with pytest.raises(ConfigurationError, match=r"private addresses only, and 93\.184\.216\.34 is none"):
        await preview_run(away, {}, tell=desk.told.append)

    await scrub_database(desk.database, dry_run=False, confirm=lambda _: None, tell=desk.told.append)
    with pytest.raises(BadInputError, match="were scrubbed"):
        await desk.run(config)
    with pytest.raises(BadInputError, match="were scrubbed"):
        await desk.preview(config)
