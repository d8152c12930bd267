"""Owns the proof that the suite can fail: breaks the program in one place at a time and expects tests to go red.

`python tests/mutations.py` (`make mutations`) works on copies of the checkout. Each copy gets one mutation, and the
tests that are named beside it run there; the same tests must pass on an unchanged copy, or their failing would show
nothing. Exit 1 if a mutation survives. The table is written to `docs/mutations.md`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = REPOSITORY / "docs" / "mutations.md"
LONGEST_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One defect, and the tests that must notice it."""

    name: str
    file: str
    #: stands exactly once in the file
    old: str
    new: str
    #: arguments of pytest: files, ids, `-k` expressions
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    mutation: Mutation
    #: the mutated program made a test fail, and the unchanged one passes them all
    is_caught: bool
    #: the last line of pytest
    verdict: str


STORE_SUITE = "tests/contract/test_store_contract.py"
BATCH_SUITE = "tests/integration/test_batches.py"
BATCH_STORE_SUITE = "tests/contract/test_batch_store_contract.py"
UNCALLED_SUITE = "tests/contract/test_store_uncalled.py"
DISCLOSURE = "tests/unit/test_report_disclosure.py"
R_FILES = "tests/integration/test_r_duplicates_and_ids.py"
R_EXPERIMENTS = "tests/integration/test_r_experiments.py"

MUTATIONS = (
    Mutation(
        name="ON CONFLICT dropped from the insert of a result",
        file="narrun_async/stores/sqlite/statements.py",
        old='f"{_insert_result()} ON CONFLICT (experiment_id, incident_id, narrative_type) DO NOTHING"',
        new="_insert_result()",
        tests=(STORE_SUITE, "-k", "writing_a_batch_again"),
    ),
    Mutation(
        name="INSERT OR REPLACE instead of INSERT",
        file="narrun_async/stores/sqlite/statements.py",
        old='f"{_insert_result()} ON CONFLICT (experiment_id, incident_id, narrative_type) DO NOTHING"',
        new='_insert_result().replace("INSERT INTO", "INSERT OR REPLACE INTO")',
        tests=(STORE_SUITE, "-k", "never_overwritten or batch_again or not_touched"),
    ),
    Mutation(
        name="buffer cleared before COMMIT",
        file="narrun_async/writer.py",
        old="        await self._store.write_batch(self._experiment_id, self._run_id, batch, self._progress.mark())\n",
        new="        batch, cleared = list(batch), batch\n        cleared.clear()\n"
        "        await self._store.write_batch(self._experiment_id, self._run_id, batch, self._progress.mark())\n",
        tests=("tests/integration/test_runner_storage.py", "-k", "freed_in_time or locks_for_a_while"),
    ),
    Mutation(
        name="synchronous=OFF",
        file="narrun_async/stores/sqlite/connection.py",
        old="PRAGMA synchronous=FULL",
        new="PRAGMA synchronous=OFF",
        tests=("tests/crash/test_disk_power.py",),
    ),
    Mutation(
        name="no lock for new runs",
        file="narrun_async/stores/locking.py",
        old="            self._lock.acquire(timeout=LOOK_ALLOWANCE_S, poll_interval=0.02)\n",
        new='            if self._purpose != "run":\n'
        "                self._lock.acquire(timeout=LOOK_ALLOWANCE_S, poll_interval=0.02)\n",
        tests=("tests/crash/test_two_runs.py",),
    ),
    Mutation(
        name="remaining set without the experiment",
        file="narrun_async/stores/sqlite/statements.py",
        old='''_JOIN_RESULTS = """
LEFT JOIN narrative_results AS r
    ON r.experiment_id = :experiment_id AND r.incident_id''',
        new='''_JOIN_RESULTS = """
LEFT JOIN narrative_results AS r
    ON r.incident_id''',
        tests=(STORE_SUITE, "-k", "selected_part_of_the_cohort"),
    ),
    Mutation(
        name="total overwritten on resume",
        file="narrun_async/finalizer.py",
        old='        "n_narratives_processed": counts.n_rows,\n',
        new='        "n_narratives_processed": counts.n_rows,\n        "n_narratives_total": counts.n_rows,\n',
        tests=("tests/crash/test_resume_semantics.py", "-k", "pilot or go_on_over_many_lives"),
    ),
    Mutation(
        name="log files opened for writing, not appending",
        file="narrun_async/logs.py",
        old="os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC",
        new="os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC",
        tests=("tests/unit/test_logs.py",),
    ),
    Mutation(
        name="no total deadline of an attempt",
        file="narrun_async/caller/calling.py",
        old="        async with asyncio.timeout(deadline_s):\n            reply = await provider.complete(body)",
        new="        async with asyncio.timeout(None):\n            reply = await provider.complete(body)",
        tests=("tests/integration/test_runner_outcomes.py", "-k", "deadline or timeout"),
    ),
    Mutation(
        name="breaker off",
        file="narrun_async/limits/breaker.py",
        old="        reached_endpoint = failure.failure_class is not FailureClass.UNREACHABLE\n",
        new="        reached_endpoint = failure.failure_class is not FailureClass.UNREACHABLE\n"
        "        if failure:\n            return True, False\n",
        tests=("tests/integration/test_runner_outages.py", "-k", "goes_down_in_mid_run or poison"),
    ),
    Mutation(
        name="egress guard off",
        file="narrun_async/providers/egress.py",
        old="        if not address_is_allowed(str(address[0]), allow_remote=allow_remote):\n",
        new="        if False:\n",
        tests=("tests/contract/test_provider_egress.py",),
    ),
    Mutation(
        name="error guard off",
        file="narrun_async/limits/error_guard.py",
        old="        verdict = outcome.verdict\n        if isinstance(verdict, Detection):\n",
        new="        verdict = outcome.verdict\n        if outcome:\n            return (outcome,)\n"
        "        if isinstance(verdict, Detection):\n",
        tests=("tests/unit/test_error_guard.py",),
    ),
    Mutation(
        name="texts copied to be browsed",
        file="narrun_async/stores/sqlite/browsing.py",
        old="if with_text or name not in withheld_columns(table)",
        new="if True or name not in withheld_columns(table)",
        tests=("tests/crash/test_browse.py", "-k", "no_address or filter_on_a_text"),
    ),
    Mutation(
        name="browsing without the secret of the link",
        file="narrun_async/reporting/browse/guard.py",
        old='        if not self._is_secret(self._cookie(headers.get(b"cookie", ""))):\n',
        new="        if False:\n",
        tests=("tests/crash/test_browse.py", "-k", "without_the_link"),
    ),
    Mutation(
        name="texts sorted in a temporary file for an export",
        file="narrun_async/stores/sqlite/statements.py",
        old="SELECT r.* FROM (\n    SELECT result_id FROM",
        new="SELECT r.* FROM (\n    SELECT * FROM",
        tests=("tests/crash/test_export_command.py", "-k", "temporary_file"),
    ),
    Mutation(
        name="exported texts cut without a word",
        file="narrun_async/reporting/exports/narrowing.py",
        old="        self._n_cut[series.name] += too_long\n",
        new="",
        tests=("tests/unit/test_typed_exports.py",),
    ),
    Mutation(
        name="batch: the provider is not asked what it has before a batch is created",
        file="narrun_async/operations/batches/submitting.py",
        old="        found = await self.find(batch)\n        if found is not None:\n            self.tell",
        new="        found = None\n        if found is not None:\n            self.tell",
        tests=(BATCH_SUITE, "-k", "put_back or metadata_less or lost_answer or person"),
    ),
    Mutation(
        name="batch: a lost answer to a creation is taken for none",
        file="narrun_async/operations/batches/submitting.py",
        old="        if may_have_acted(created):\n",
        new="        if False:\n",
        tests=(BATCH_SUITE, "-k", "lost_answer or shows_late"),
    ),
    Mutation(
        name="batch: an empty list is believed at once",
        file="narrun_async/operations/batches/submitting.py",
        old="        return await self._find_until_settled(batch)\n",
        new="        return None\n",
        tests=(BATCH_SUITE, "-k", "shows_late"),
    ),
    Mutation(
        name="batch: a run is not refused while one is open",
        file="narrun_async/batching/states.py",
        old="OPEN = frozenset(BatchState) - {CLOSED}\n",
        new="OPEN = frozenset({UPLOADING, UPLOADED, CREATING, ENDED})\n",
        tests=(BATCH_SUITE, "-k", "cannot_be_run"),
    ),
    Mutation(
        name="batch: what is in an open one is exported again",
        file="narrun_async/stores/sqlite/batch_statements.py",
        old="WHERE b.experiment_id = :experiment_id AND b.{IS_OPEN} AND",
        new="WHERE b.experiment_id IS NULL AND b.{IS_OPEN} AND",
        tests=(BATCH_SUITE, "-k", "not_exported_again"),
    ),
    Mutation(
        name="batch: two processes may go on with one",
        file="narrun_async/stores/sqlite/batch_statements.py",
        old=" WHERE batch_id = :batch_id AND state = :was\n",
        new=" WHERE batch_id = :batch_id\n",
        tests=(BATCH_STORE_SUITE, "-k", "second_changes_nothing"),
    ),
    Mutation(
        name="batch: a call is not known by its batch",
        file="narrun_async/operations/batches/answers.py",
        old="    attempt = replace(outcome.attempt, batch_id=batch.batch_id)\n",
        new="    attempt = outcome.attempt\n",
        tests=(BATCH_SUITE, "-k", "part_by_part or those_of_a_run"),
    ),
    Mutation(
        name="batch: an answer to an earlier one is taken for one to a later",
        file="narrun_async/operations/batches/answers.py",
        old="        target, one = targets.get(key.number), (key.number, key.narrative_id)\n",
        new="        target, one = targets.get(max(targets)), (key.number, key.narrative_id)\n",
        tests=("tests/unit/test_batch_answers.py", "-k", "sorted"),
    ),
    Mutation(
        name="batch: a POST may be sent twice",
        file="narrun_async/providers/openai_batches.py",
        old="            return await self._transport.exchange(request, deadline_s=deadline_s or self._deadline_s)\n",
        new="            reply = await self._transport.exchange(request, deadline_s=deadline_s or self._deadline_s)\n"
        "            return reply\n        except CallError:\n            pass\n        try:\n"
        "            return await self._transport.exchange(request, deadline_s=deadline_s or self._deadline_s)\n",
        tests=("tests/contract/test_batch_provider.py", "-k", "answer_is_lost"),
    ),
    Mutation(
        name="batch: the key stays in what is fetched",
        file="narrun_async/providers/openai_batches.py",
        old="        redaction = Redaction(write, self._secrets)\n",
        new="        redaction = Redaction(write, ())\n",
        tests=("tests/contract/test_batch_provider.py", "-k", "key_is_sent"),
    ),
    Mutation(
        name="batch: refusals of everything become error rows",
        file="narrun_async/operations/batches/collecting.py",
        old="and not self._is_proven:\n",
        new="and False:\n",
        tests=(BATCH_SUITE, "-k", "refusals_alone"),
    ),
    Mutation(
        name="batch: what takes no call is left to a run",
        file="narrun_async/operations/batches/collecting.py",
        old="        if control.is_stopping:\n            return\n        rows",
        new="        if control:\n            return\n        rows",
        tests=(BATCH_SUITE, "-k", "takes_no_call"),
    ),
    Mutation(
        name="batch: files of closed ones stay",
        file="narrun_async/app/batches.py",
        old="        if batch.state is not BatchState.CLOSED or batch.keeps_files:\n",
        new="        if batch:\n",
        tests=(BATCH_SUITE, "-k", "is_removed"),
    ),
    Mutation(
        name="a phrase anywhere makes a placeholder",
        file="narrun_async/screening.py",
        old="pattern.fullmatch(normalised)",
        new="pattern.search(normalised)",
        tests=("tests/unit/test_screening.py", "-k", "contains_any or says_something"),
    ),
    Mutation(
        name="repeats are asked, too",
        file="narrun_async/stores/sqlite/statements.py",
        old='_IS_FIRST = "(NOT :asks_identical_once OR s.same_text_as IS NULL)"',
        new='_IS_FIRST = "1"',
        tests=(UNCALLED_SUITE, "-k", "takes_no_call"),
    ),
    Mutation(
        name="copies that have fallen behind are left",
        file="narrun_async/stores/sqlite/statements.py",
        old="r.error_occurred = 1 AND o.run_id > r.run_id END",
        new="0 END",
        tests=("tests/crash/test_virtual_uncalled.py", "-k", "tried_again and sqlite"),
    ),
    Mutation(
        name="a copy may take the place of any row",
        file="narrun_async/stores/sqlite/statements.py",
        old="WHERE narrative_results.error_occurred = 1 AND narrative_results.copied_from = excluded.copied_from\n"
        "    AND narrative_results.run_id < excluded.run_id",
        new="WHERE 1",
        tests=(UNCALLED_SUITE, "-k", "never_overwritten or not_taken_for_a_copy"),
    ),
    Mutation(
        name="report: labels computed with, though they are withheld",
        file="narrun_async/analysis/report.py",
        old="with_labels=LABELS_OF[level] not in withheld)",
        new="with_labels=True)",
        tests=(DISCLOSURE, "-k", "each_small_count or sections_speak"),
    ),
    Mutation(
        name="report: tables are shown that give a small count away together",
        file="narrun_async/analysis/auditing.py",
        old="                if (one := self._find_cohort(aim, shown)) is None:\n                    return False",
        new="                if (one := self._find_cohort(aim, shown)) is None:\n                    continue",
        tests=(DISCLOSURE, "-k", "each_small_count"),
    ),
    Mutation(
        name="report: what intervals of clusters give away is not reckoned with",
        file="narrun_async/analysis/disclosure.py",
        old="known = group.known if with_clusters else ()",
        new="known = ()",
        tests=(DISCLOSURE, "-k", "each_small_count"),
    ),
    Mutation(
        name="report: nothing is escaped",
        file="narrun_async/reporting/html/rendering.py",
        old="autoescape=True",
        new="autoescape=False",
        tests=("tests/unit/test_report_rendering.py", "-k", "is_text or to_the_letter"),
    ),
    Mutation(
        name="report: indicators whether asked for or not",
        file="narrun_async/app/documenting.py",
        old="await _indicators(store, experiment, request) if request.with_text else None",
        new="await _indicators(store, experiment, request)",
        tests=("tests/integration/test_report_command.py", "-k", "no_text_of_a_narrative"),
    ),
    Mutation(
        name="report: an endpoint's refusal in its own words",
        file="narrun_async/reporting/html/sections/course.py",
        old="if run.exit_code == ExitCode.CONFIGURATION:",
        new="if run.exit_code is False:",
        tests=("tests/unit/test_report_page.py", "-k", "refused"),
    ),
    Mutation(
        name="report: the content security policy is lost",
        file="narrun_async/reporting/html/templates/page.html",
        old="default-src 'none'; ",
        new="",
        tests=("tests/unit/test_report_rendering.py", "-k", "nothing_is_loaded"),
    ),
    Mutation(
        name="R: the newest of several results stays, answer or not",
        file="narrun_async/stores/sqlite/legacy_statements.py",
        old="ORDER BY COALESCE(r.error_occurred = 0 AND r.detected IN (0, 1), 0) DESC,\n"
        "                 COALESCE(r.error_occurred = 1, 0) DESC, r.result_id DESC))",
        new="ORDER BY r.result_id DESC))",
        tests=(R_FILES, "-k", "one_result_stays"),
    ),
    Mutation(
        name="R: results that cannot stay are deleted and not kept",
        file="narrun_async/stores/sqlite/inheritance.py",
        old='        await connection.execute(move, counts | stamp | {"report_id": report.lastrowid})\n',
        new="        assert move and report\n",
        tests=(R_FILES, "-k", "one_result_stays"),
    ),
    Mutation(
        name="R: results with a lost id are asked and paid for again",
        file="narrun_async/operations/repairing.py",
        old="    if n_strays:\n",
        new="    if n_strays < 0:\n",
        tests=(R_FILES, "-k", "lost_their_narratives"),
    ),
    Mutation(
        name="R: a finished pilot grows when its errors are retried",
        file="narrun_async/operations/adopting.py",
        old="    most = survey.last_rank if experiment.status is ExperimentStatus.COMPLETED else source.n_narratives\n",
        new="    most = source.n_narratives\n",
        tests=(R_EXPERIMENTS, "-k", "pilot"),
    ),
    Mutation(
        name="R: the time that it took is forgotten",
        file="narrun_async/operations/adopting.py",
        old="        runtime_s=max(0.0, float(runtime_s)),\n",
        new="        runtime_s=0.0,\n",
        tests=(R_EXPERIMENTS, "-k", "no_time_is_lost"),
    ),
    Mutation(
        name="R: results of no narrative stay among the results",
        file="narrun_async/stores/sqlite/legacy.py",
        old="                await set_outside_aside(\n",
        new="                (lambda *_, **__: None)(\n",
        tests=(R_EXPERIMENTS, "-k", "no_narrative_of_the_cohort"),
    ),
    Mutation(
        name="R: texts of what was set aside outlive a scrub",
        file="narrun_async/stores/sqlite/scrubbing.py",
        old='    "legacy_results": _OF_RESULTS,\n',
        new="",
        tests=(R_EXPERIMENTS, "-k", "scrubbing"),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Break the program in one place at a time and expect tests to fail.")
    parser.add_argument("--only", metavar="WORD", help="mutations whose name holds this word; writes no table")
    chosen = parser.parse_args(arguments)
    mutations = [one for one in MUTATIONS if chosen.only is None or chosen.only in one.name]
    outcomes = []
    for mutation in mutations:
        outcome = try_mutation(mutation)
        outcomes.append(outcome)
        print(f"{'caught' if outcome.is_caught else 'SURVIVED':8}  {mutation.name}: {outcome.verdict}", flush=True)
    if chosen.only is None:
        TABLE.write_text(draw_table(outcomes), encoding="utf-8")
    return 0 if all(outcome.is_caught for outcome in outcomes) else 1


def try_mutation(mutation: Mutation) -> Outcome:
    """Run the named tests on an unchanged copy and on a mutated one."""
    with tempfile.TemporaryDirectory(prefix="narrun-mutation-") as directory:
        copy = Path(directory) / "checkout"
        copy_checkout(copy)
        code, verdict = run_tests(copy, mutation.tests)
        if code != 0:
            return Outcome(
                mutation=mutation,
                is_caught=False,
                verdict=f"red without it: {verdict}",
            )
        apply_mutation(copy, mutation)
        code, verdict = run_tests(copy, mutation.tests)
    return Outcome(mutation=mutation, is_caught=code == 1, verdict=verdict)


def apply_mutation(copy: Path, mutation: Mutation) -> None:
    path = copy / mutation.file
    source = path.read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1, f"{mutation.name}: its text stands {source.count(mutation.old)} times"
    path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")


def copy_checkout(target: Path) -> None:
    """Every file that git knows or would add, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit status (1: tests failed) and its last line."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"hung for {LONGEST_S} s"
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    return done.returncode, re.sub(r" in [\d.]+s.*", "", last).strip("= ")


def draw_table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "# Can the suite fail?",
        "",
        "Written by `make mutations`: each line is one defect put into a copy of the program, and what the tests",
        "beside it said. They pass without it.",
        "",
        "| defect | in | caught | by | pytest |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.mutation.name} | `{one.mutation.file}` | {'yes' if one.is_caught else '**no**'}"
        f" | `{' '.join(one.mutation.tests)}` | {one.verdict} |"
        for one in outcomes
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
