"""The smoke test of the plan, word for word: `make run`, SIGKILL at 50 rows, `make resume`."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from harness import REPOSITORY, Process, Workplace, clean_environment

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def test_two_hundred_killed_at_fifty_and_resumed_with_make_are_two_hundred_with_the_first_ones_untouched(
    workplace: Workplace,
) -> None:
    workplace.database.parent.mkdir()
    environment = clean_environment(EXPERIMENTS_DB=str(workplace.database))
    logs = workplace.directory / "logs"
    make_run = ["make", "-C", str(REPOSITORY), "run", f"ARGS=--log-dir {logs}"]
    with Process(make_run, cwd=workplace.directory, environment=environment, start_new_session=True) as make:
        workplace.wait_for_rows(50, make)
        holder = json.loads(workplace.database.with_name("experiments.db.lock.json").read_text())
        os.kill(holder["pid"], signal.SIGKILL)
        make.wait().expect(2)  # make's word for every failure

    saved = workplace.rows()
    assert 50 <= len(saved) < 200
    assert workplace.experiment()["status"] == "running"  # what SIGKILL leaves behind

    environment |= {"RESUME": "1", "EXPERIMENT_ID": workplace.experiment_id()}
    resumed = subprocess.run(
        ["make", "-C", str(REPOSITORY), "resume"], env=environment, capture_output=True, text=True, timeout=120
    )

    assert resumed.returncode == 0, resumed.stderr
    workplace.require_sound()
    rows = workplace.rows()
    assert len(rows) == 200
    assert {key: rows[key] for key in saved} == saved
    experiment = workplace.experiment()
    assert (experiment["status"], experiment["n_narratives_total"]) == ("completed", 200)
    assert sorted(row["row_num"] for row in rows.values()) == list(range(1, 201))
