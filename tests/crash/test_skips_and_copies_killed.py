"""Placeholders that are skipped and identical texts that are asked once, by real processes, killed and not."""

from __future__ import annotations

import csv
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Key, Row, Workplace, digest_of_results, recorded_requests
from reliability import Measured

pytestmark = pytest.mark.crash

FRUGAL = {"run__skip_placeholders": True, "run__ask_identical_once": True}
PHRASES = ("No report available.", "N/A", "See CME narrative.", "LE report not available")
SEED = 20261128


def write_table(workplace: Workplace, count: int, *, name: str = "door.csv") -> tuple[Path, Counter[str]]:
    """Every tenth text is a placeholder, every sixth that of an earlier one.

    :returns: the table, and how many narratives have each text
    """
    events = ("was found at home by a relative", "was shot by an ex-boyfriend after an argument", "fell at work")
    path, texts = workplace.directory / name, list[str]()
    for number in range(count):
        if number % 10 == 3:
            texts.append(PHRASES[number % len(PHRASES)])
        elif number % 6 == 5:
            texts.append(texts[number // 2 - number // 2 % 10])
        else:
            texts.append(f"The decedent {events[number % 3]}; account {number} ends here.")
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"])
        for number, text in enumerate(texts):
            kind = "le" if number % 2 else "cme"
            rows.writerow([1000 + number // 2, kind, text, int(number % 4 == 0) if number % 7 else ""])
    return path, Counter(texts)


def asked_texts(texts: Mapping[str, int]) -> set[str]:
    return {text for text in texts if text not in PHRASES}


def expected_counts(texts: Mapping[str, int]) -> tuple[int, int, int]:
    """Asked, skipped, copied."""
    n_asked = len(asked_texts(texts))
    n_skipped = sum(texts[phrase] for phrase in PHRASES)
    return n_asked, n_skipped, sum(texts.values()) - n_asked - n_skipped


def digest(rows: Mapping[Key, Row]) -> str:
    return digest_of_results({key: {**row, "processed_at": None} for key, row in rows.items()})


def test_each_text_is_sent_once_placeholders_never_and_everything_says_so(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    record = workplace.directory / "requests.jsonl"
    endpoint = start_endpoint("--latency-ms", "5", "--record", str(record))
    table, texts = write_table(workplace, 120)
    n_asked, n_skipped, n_copied = expected_counts(texts)
    assert min(n_asked, n_skipped, n_copied) >= 10
    config = workplace.write_config(url=endpoint.url, narratives=table, **FRUGAL)

    preview = workplace.run("run", config, "--dry-run").expect(0)
    assert f"{n_asked} of 120 narratives" in preview.err
    assert not workplace.database.exists()
    estimate = workplace.run("estimate", config, "--sample", "4").expect(0)
    assert f"remaining   {n_asked} narratives" in estimate.out
    assert f"{n_skipped} placeholders are skipped" in estimate.out
    calls = endpoint.calls()

    done = workplace.run("run", config).expect(0)

    assert endpoint.calls() - calls == n_asked
    sent = [request["messages"][-1]["content"].removeprefix("Text: ") for request in recorded_requests(record)]
    assert sorted(sent[calls:]) == sorted(asked_texts(texts))
    assert f"{n_skipped} placeholders" in done.err and "by the rules narrun-1" in done.err
    assert f"no call    {n_copied} narratives have the text of another one" in done.err
    assert f"120 of 120: {120 - n_skipped} answers, 0 errors, {n_skipped} skipped" in done.out
    experiment = workplace.experiment()
    assert (experiment["n_narratives_processed"], experiment["n_narratives_skipped"]) == (120, n_skipped)
    assert experiment["placeholder_rules"].startswith("narrun-1 (sha256 ")
    workplace.run("verify").expect(0)


@pytest.mark.slow
@pytest.mark.fault("P01")
def test_kills_at_any_moment_repeat_no_skip_and_no_copy_and_lead_to_the_same_results(
    workplace: Workplace, start_endpoint: StartEndpoint, is_long: bool, measured: Measured
) -> None:
    kills, count = (60, 2000) if is_long else (4, 160)
    rng = random.Random(SEED)
    endpoint = start_endpoint(
        "--seed", "5", "--latency-ms", "40", "--latency-spread", "0.7", "--fault", "malformed=0.03"
    )
    table, texts = write_table(workplace, count)
    n_asked, n_skipped, n_copied = expected_counts(texts)
    # one call a text, so that calls can be counted
    config = workplace.write_config(
        url=endpoint.url, narratives=table, run__concurrency=8, model__second_try=False, **FRUGAL
    )
    moments = sorted(rng.uniform(0, 1) for _ in range(kills))
    seen: dict[Key, Row] = {}
    n_kills = 0
    for moment in moments:
        with workplace.start(*_command(workplace, config)) as process:
            if moment < 0.3:
                time.sleep(rng.uniform(0.3, 1.2))
            else:
                workplace.wait_for_rows(int(moment * count), process)
                time.sleep(rng.uniform(0, 0.03))
            n_kills += process.is_running
            process.send(signal.SIGKILL)
            process.wait()
        if not workplace.database.exists():
            continue
        workplace.require_sound()
        rows = workplace.rows()
        assert seen.items() <= rows.items(), "a saved row is gone or has changed"
        seen = rows
        if is_long:
            workplace.run("verify").expect(0)
    assert n_kills >= 0.6 * kills

    finished = workplace.run(*_command(workplace, config))

    assert finished.code in (0, 1), finished.err
    rows = workplace.rows()
    assert seen.items() <= rows.items()
    assert len(rows) == count
    assert sum(row["skip_reason"] is not None for row in rows.values()) == n_skipped
    assert sum(row["copied_from"] is not None for row in rows.values()) == n_copied
    assert workplace.experiment()["status"] == "completed"
    workplace.run("verify").expect(0)
    n_decided = workplace.ask_one("SELECT COUNT(*) FROM attempts")
    assert n_decided == n_asked, "a text was answered twice and stored twice"
    assert digest(rows) == _undisturbed(workplace, endpoint.url, table)
    measured(
        f"{n_kills} kills of a run that skips {n_skipped} and copies {n_copied} of {count}: nothing lost or doubled"
    )


def _command(workplace: Workplace, config: Path) -> tuple[str, ...]:
    if workplace.database.exists() and workplace.ask("SELECT 1 FROM experiments"):
        return ("resume", workplace.experiment_id())
    return ("run", str(config))


def _undisturbed(workplace: Workplace, url: str, table: Path) -> str:
    other = Workplace(directory=workplace.directory / "undisturbed")
    other.directory.mkdir()
    finished = other.run(
        "run",
        other.write_config(url=url, narratives=table, run__concurrency=32, model__second_try=False, **FRUGAL),
    )
    assert finished.code in (0, 1), finished.err
    return digest(other.rows())
