"""Owns what is worked on: the database with its narratives, a fresh copy of it for every run, the configuration."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PROMPTS = ROOT / "configs" / "prompts"

#: every synthetic case has two narratives, and about a sixth of the cells is blank
_CASES_PER_NARRATIVE = 0.62

MODEL = "bench-model"
TEMPERATURE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A database that holds the narratives of one file, and that file."""

    source: Path
    database: Path
    n_narratives: int


def make_workload(n_narratives: int, *, short_texts: bool = False) -> Workload:
    """At least that many narratives, ingested by the program itself; kept between benchmarks under results/.

    :param short_texts: one sentence each, for very many narratives
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    stem = RESULTS / f"workload_{n_narratives}{'_short' if short_texts else ''}"
    source, database = stem.with_suffix(".csv" if short_texts else ".xlsx"), stem.with_suffix(".db")
    if not database.exists():
        unfinished = database.with_suffix(".unfinished.db")
        unfinished.unlink(missing_ok=True)
        if short_texts:
            _write_short_texts(source, n_narratives)
        else:
            n_cases = int(n_narratives * _CASES_PER_NARRATIVE) + 20
            _narrun("synth", "--force", "--cases", str(n_cases), str(source))
        _narrun("ingest", str(source), "--db", str(unfinished))
        unfinished.rename(database)
        unfinished.with_name(unfinished.name + ".lock").unlink(missing_ok=True)
    return Workload(source=source, database=database, n_narratives=n_narratives)


def copy_database(workload: Workload, directory: Path) -> Path:
    """A database of its own for one run."""
    path = directory / "run.db"
    for leftover in directory.glob("run.db*"):
        leftover.unlink()
    shutil.copyfile(workload.database, path)
    return path


def write_config(workload: Workload, directory: Path, url: str) -> Path:
    """The configuration of the real program: the shipped prompts, the benchmark's endpoint."""
    path = directory / "bench.yaml"
    path.write_text(
        f"""experiment:
  name: bench
  author: narrun_async
model:
  name: {MODEL}
  provider: openai
  api_url: {url}
  temperature: {TEMPERATURE}
prompt:
  version: ipv-1
  system_prompt_file: {PROMPTS / "ipv_system.txt"}
  user_template_file: {PROMPTS / "ipv_user.txt"}
data:
  file: {workload.source}
run:
  save_csv_json: false
"""
    )
    return path


def _write_short_texts(path: Path, n_narratives: int) -> None:
    rng = random.Random(0)
    who = ("neighbour", "sister", "coworker", "landlord", "friend")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"])
        for number in range(n_narratives):
            text = f"A {rng.choice(who)} asked for a welfare check; nobody had answered for {rng.randint(2, 60)} hours."
            table.writerow([f"S{number // 2}", ("cme", "le")[number % 2], text, number % 7 == 0])


def _narrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "narrun_async", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
