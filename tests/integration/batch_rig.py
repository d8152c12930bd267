"""Owns the rig of the batch tests: the commands as `app` has them, a real database, a Batch API on a real socket."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from narrun_async.app.batch_answers import CollectOptions, collect_batches, poll_batches
from narrun_async.app.batches import BatchRequest, cancel_batches, export_experiment, submit_batches
from narrun_async.app.examining import verify_database
from narrun_async.app.planning import RunRequest
from narrun_async.app.running import run_experiment
from narrun_async.app.sweeping import SweepRequest, run_sweep
from narrun_async.batching.shards import ShardLimits
from narrun_async.errors import ExitCode
from narrun_async.simulation.batch_work import answer_request
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.endpoint import SimulatedEndpoint

#: columns that tell when, how long and in which life something happened; the rest is the result
ACCIDENTAL = frozenset(
    {"result_id", "experiment_id", "response_sec", "processed_at", "last_attempt_at", "run_id", "attempt_count"}
)
EVENTS = ("was struck by a vehicle", "had a protective order against the husband", "collapsed at work", "was choked")


@dataclass(kw_only=True)
class BatchRig:
    """One directory, one endpoint; `request` and `option` fields of every command as keywords."""

    directory: Path
    endpoint: SimulatedEndpoint
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    # --- files ---

    def write_config(self, n_narratives: int = 40, *, name: str = "c", **changes: Any) -> Path:
        table = self.directory / "narratives.csv"
        lines = ["incident_id,narrative_type,narrative_text,manual_flag_ind"]
        lines += [
            f"{1000 + n},{'cme' if n % 2 else 'le'},Synthetic account {n}: the person {EVENTS[n % 4]}.,{n % 2}"
            for n in range(n_narratives)
        ]
        table.write_text("\n".join(lines) + "\n")
        sections: dict[str, dict[str, Any]] = {
            "experiment": {"name": name},
            "model": {
                "name": "model-of-tests",
                "provider": "openai-compatible",
                "api_url": self.endpoint.url,
                "temperature": 0.2,
                "second_try": False,  # a batch has none
            },
            "prompt": {"version": "1", "system_prompt": "Answer in JSON.", "user_template": "Read: <<TEXT>>"},
            "data": {"file": str(table)},
            "run": {"seed": 1},
        }
        for key, value in changes.items():
            section, _, entry = key.partition("__")
            sections[section][entry] = value
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(sections))
        return path

    @property
    def database(self) -> Path:
        return self.directory / "data" / "experiments.db"

    def experiment_id(self) -> str:
        """The newest one."""
        return str(self.ask_one("SELECT experiment_id FROM experiments ORDER BY rowid DESC LIMIT 1"))

    def batch_files(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "logs").rglob("*batch-*"))

    # --- commands ---

    def _tell(self, line: str) -> None:
        self.told.append(line)

    def _say(self, line: str) -> None:
        self.said.append(line)

    def _request(self, numbers: Sequence[int] = (), settle_s: float = 0.2, **run: Any) -> BatchRequest:
        wanted = {"database": self.database, "resume": True, "log_root": self.directory / "logs"} | run
        if "experiment_id" not in wanted:
            wanted["experiment_id"] = self.experiment_id()
        return BatchRequest(run=RunRequest(**wanted), environment=self.environment, numbers=numbers, settle_s=settle_s)

    async def export(
        self,
        *,
        new: Path | None = None,
        out: Path | None = None,
        limits: ShardLimits | None = None,
        **run: Any,
    ) -> ExitCode:
        if new is not None:
            run |= {"config_file": new, "resume": False, "experiment_id": None}
        return await export_experiment(
            self._request(**run), limits=limits or ShardLimits(), out=out, tell=self._tell, say=self._say
        )

    async def submit(self, *, resubmit: bool = False, **options: Any) -> ExitCode:
        return await submit_batches(self._request(**options), resubmit=resubmit, tell=self._tell)

    async def poll(self, *, waits: bool = False, **options: Any) -> ExitCode:
        return await poll_batches(
            self._request(**options), waits=waits, interval_s=0.05, tell=self._tell, say=self._say
        )

    async def collect(
        self, *files: Path, numbers: Sequence[int] = (), run: Mapping[str, Any] | None = None, **how: Any
    ) -> ExitCode:
        options = CollectOptions(files=files, **how)
        return await collect_batches(self._request(numbers, **(run or {})), options, tell=self._tell, say=self._say)

    async def cancel(self, *, abandons: bool = False, **options: Any) -> ExitCode:
        return await cancel_batches(self._request(**options), abandons=abandons, tell=self._tell)

    async def all_of_it(self, config: Path, **export: Any) -> ExitCode:
        """From a configuration to rows."""
        await self.export(new=config, **export)
        await self.submit()
        assert await self.poll(waits=True) is ExitCode.COMPLETED
        return await self.collect()

    async def run(self, **wanted: Any) -> ExitCode:
        """Calls, not batches."""
        request = RunRequest(
            **{
                "database": self.database,
                "log_root": self.directory / "logs",
                "overrides": {"run.concurrency": 8},
                **wanted,
            }
        )
        return await run_experiment(request, self.environment, tell=self._tell, say=self._say, interactive=False)

    async def resume(self, **wanted: Any) -> ExitCode:
        return await self.run(resume=True, **{"experiment_id": self.experiment_id(), **wanted})

    async def sweep(
        self, config: Path, *, accept_restored: bool = False, **matrix: Mapping[str, Sequence[object]]
    ) -> ExitCode:
        """One experiment for each combination; the same matrix goes on with the same sweep."""
        path = self.directory / "sweep.yaml"
        path.write_text(yaml.safe_dump({"sweep": {"name": "s"}, "base": config.name, "matrix": matrix}))
        request = SweepRequest(
            sweep_file=path,
            database=self.database,
            overrides={"run.concurrency": 8},
            log_root=self.directory / "logs",
            accept_restored=accept_restored,
        )
        return await run_sweep(request, self.environment, tell=self._tell, say=self._say, interactive=False)

    # --- what came of it ---

    def ask(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(statement, values)]

    def ask_one(self, statement: str) -> Any:
        (row,) = self.ask(statement)
        (value,) = row.values()
        return value

    def states(self) -> list[str]:
        return [row["state"] for row in self.ask("SELECT state FROM batches ORDER BY batch_id")]

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Result rows by key, without what is accidental."""
        found = self.ask("SELECT * FROM narrative_results")
        by_key = {(row["incident_id"], row["narrative_type"]): row for row in found}
        assert len(by_key) == len(found), "a narrative has two rows"
        return {key: _lasting(row) for key, row in by_key.items()}

    def n_missing(self) -> int:
        total = self.ask_one("SELECT MAX(n_narratives_total) FROM experiments")
        return int(total - self.ask_one("SELECT COUNT(*) FROM narrative_results"))

    async def verify(self) -> None:
        examination = await verify_database(self.database, None, as_json=False)
        assert examination.exit_code is ExitCode.COMPLETED, "\n".join(examination.lines)


def _lasting(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a repetition would give again: answers without the number and the time of their calls."""
    lasting = {name: value for name, value in row.items() if name not in ACCIDENTAL}
    try:
        body = json.loads(row["raw_response"] or "")
    except ValueError:
        return lasting
    return lasting | {"raw_response": {name: value for name, value in body.items() if name not in ("id", "created")}}


@asynccontextmanager
async def open_batch_rig(directory: Path, **behaviour: Any) -> AsyncIterator[BatchRig]:
    async with SimulatedEndpoint(Behaviour(**behaviour)) as endpoint:
        yield BatchRig(directory=directory, endpoint=endpoint)


def vllm_lines(requests: Path, behaviour: Behaviour) -> list[str]:
    """What `vllm run-batch` writes for a batch file, with the answers of the simulated model: errors lie beside a
    response without a body.
    """
    lines = []
    for line in requests.read_text().splitlines():
        asked = json.loads(line)
        assert (asked["method"], asked["url"]) == ("POST", "/v1/chat/completions")
        body = json.dumps(asked["body"]).encode()
        status, answer = answer_request(behaviour, body, attempt=1, created=1_750_000_000)
        value = json.loads(answer)
        response = {"status_code": status, "request_id": "vllm-batch-1", "body": value if status == 200 else None}
        error = None if status == 200 else value
        lines.append(
            json.dumps({"id": "vllm-1", "custom_id": asked["custom_id"], "response": response, "error": error})
        )
    return lines


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777
