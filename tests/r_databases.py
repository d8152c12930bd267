"""Writes databases as the predecessor wrote them, in each of the three shapes that its tables had.

The shapes are written out here, not taken from the schema of today.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

_SOURCES = """
CREATE TABLE source_narratives (
    narrative_id INTEGER PRIMARY KEY AUTOINCREMENT, incident_id TEXT, narrative_type TEXT, narrative_text TEXT,
    manual_flag_ind INTEGER, manual_flag INTEGER, data_source TEXT, {checksum} loaded_at TEXT,
    UNIQUE(incident_id, narrative_type))
"""
_EXPERIMENTS = """
CREATE TABLE experiments (
    experiment_id TEXT PRIMARY KEY, experiment_name TEXT, status TEXT, model_name TEXT, model_provider TEXT,
    temperature REAL, system_prompt TEXT, user_template TEXT, prompt_version TEXT, prompt_author TEXT,
    run_seed INTEGER, data_file TEXT, n_narratives_total INTEGER, n_narratives_processed INTEGER,
    n_narratives_skipped INTEGER, {progress} start_time TEXT, end_time TEXT, total_runtime_sec REAL,
    avg_time_per_narrative_sec REAL, api_url TEXT, r_version TEXT, os_info TEXT, hostname TEXT,
    n_positive_detected INTEGER, n_negative_detected INTEGER, n_positive_manual INTEGER, n_negative_manual INTEGER,
    accuracy REAL, precision_ipv REAL, recall_ipv REAL, f1_ipv REAL, n_false_positive INTEGER,
    n_false_negative INTEGER, n_true_positive INTEGER, n_true_negative INTEGER, pct_overlap_with_manual REAL,
    csv_file TEXT, json_file TEXT, log_dir TEXT, created_at TEXT, notes TEXT)
"""
_RESULTS = """
CREATE TABLE narrative_results (
    result_id INTEGER PRIMARY KEY AUTOINCREMENT, experiment_id TEXT, incident_id TEXT, narrative_type TEXT,
    row_num INTEGER, narrative_text TEXT, manual_flag_ind INTEGER, manual_flag INTEGER, detected INTEGER,
    confidence REAL, indicators TEXT, rationale TEXT, reasoning_steps TEXT, raw_response TEXT, response_sec REAL,
    processed_at TEXT, error_occurred INTEGER DEFAULT 0, error_message TEXT, {tokens}
    is_true_positive INTEGER, is_true_negative INTEGER, is_false_positive INTEGER, is_false_negative INTEGER{last}
    FOREIGN KEY(experiment_id) REFERENCES experiments(experiment_id){unique})
"""
_TOKENS = "prompt_tokens INTEGER, completion_tokens INTEGER, tokens_used INTEGER,"
_PROGRESS = "n_narratives_completed INTEGER, last_progress_update TEXT, estimated_completion_time TEXT,"
_KEY = "experiment_id, incident_id, narrative_type"

GENERATIONS: Mapping[str, list[str]] = {
    "a": [
        _SOURCES.format(checksum=""),
        _EXPERIMENTS.format(progress=""),
        _RESULTS.format(tokens="", last=f", {_TOKENS}", unique=""),
    ],
    "b": [
        _SOURCES.format(checksum="data_checksum TEXT,"),
        _EXPERIMENTS.format(progress=_PROGRESS),
        _RESULTS.format(tokens=_TOKENS, last=",", unique=""),
        f"CREATE UNIQUE INDEX idx_results_unique ON narrative_results({_KEY})",
    ],
    "c": [
        _SOURCES.format(checksum="data_checksum TEXT,"),
        _EXPERIMENTS.format(progress=_PROGRESS),
        _RESULTS.format(tokens=_TOKENS, last=",", unique=f", UNIQUE({_KEY})"),
    ],
}

#: the workbook that the narratives came from, as R wrote its path, and the MD5 of a file of later generations
DATA_FILE = "C:/ipv/cases.xlsx"
MD5 = "0123456789abcdef0123456789abcdef"
#: of narrative_results, in each generation
R_COLUMNS = (
    *("result_id", "experiment_id", "incident_id", "narrative_type", "row_num", "narrative_text", "manual_flag_ind"),
    *("manual_flag", "detected", "confidence", "indicators", "rationale", "reasoning_steps", "raw_response"),
    *("response_sec", "processed_at", "error_occurred", "error_message", "prompt_tokens", "completion_tokens"),
    *("tokens_used", "is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative"),
)
TEMPLATE = "Read this account and answer in JSON: <<TEXT>>"


#: columns that the first generation does not have; what is said of them is left out there
_LATER_COLUMNS = frozenset(
    {"data_checksum", "n_narratives_completed", "last_progress_update", "estimated_completion_time"}
)


class LegacyDatabase:
    """A file that is being written; what is not said has a value as R would have written it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _insert(self, table: str, columns: Mapping[str, Any]) -> int:
        known = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
        assert columns.keys() - known <= _LATER_COLUMNS
        kept = {name: value for name, value in columns.items() if name in known}
        marks = ", ".join(f":{name}" for name in kept)
        return self._db.execute(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({marks})", kept).lastrowid or 0

    def add_narrative(self, incident_id: str, narrative_type: str = "cme", **columns: Any) -> int:
        return self._insert(
            "source_narratives",
            {
                "incident_id": incident_id,
                "narrative_type": narrative_type,
                "narrative_text": f"Made-up account {incident_id}/{narrative_type}: a person was found at home.",
                "manual_flag_ind": 0,
                "manual_flag": 0,
                "data_source": DATA_FILE,
                "data_checksum": MD5,
                "loaded_at": "2025-01-01 09:00:00",
            }
            | columns,
        )

    def add_experiment(self, experiment_id: str, **columns: Any) -> None:
        self._insert(
            "experiments",
            {
                "experiment_id": experiment_id,
                "experiment_name": "of the R project",
                "status": "running",
                "model_name": "gpt-oss-120b",
                "model_provider": "LM Studio",
                "temperature": 0.2,
                "system_prompt": "You judge accounts.",
                "user_template": TEMPLATE,
                "prompt_version": "v2.1",
                "prompt_author": "R",
                "run_seed": 123,
                "data_file": DATA_FILE,
                "n_narratives_total": 8,
                "n_narratives_processed": 0,
                "n_narratives_skipped": 0,
                "n_narratives_completed": 0,
                "start_time": "2025-01-01 10:00:00",
                "api_url": "http://localhost:1234/v1/chat/completions",
                "r_version": "R version 4.3.1",
                "os_info": "Windows 10 x64",
                "hostname": "DESKTOP-1",
                "log_dir": f"logs/experiments/{experiment_id}",
                "created_at": "2025-01-01 10:00:00",
            }
            | columns,
        )

    def add_result(self, experiment_id: str, incident_id: object, narrative_type: object, **columns: Any) -> int:
        """A success, unless `error_occurred=1` is said."""
        is_error = columns.get("error_occurred") == 1
        manual, detected = columns.get("manual_flag_ind", 0), None if is_error else columns.get("detected", 0)
        is_judged = manual is not None and detected is not None
        judged = [int(is_judged and (detected, manual) == pair) for pair in ((1, 1), (0, 0), (1, 0), (0, 1))]
        judged = judged if is_judged else [None] * 4
        return self._insert(
            "narrative_results",
            {
                "experiment_id": experiment_id,
                "incident_id": incident_id,
                "narrative_type": narrative_type,
                "row_num": 1,
                "narrative_text": f"Made-up account {incident_id}/{narrative_type}: a person was found at home.",
                "manual_flag_ind": manual,
                "manual_flag": manual,
                "detected": detected,
                "confidence": None if is_error else 0.75,
                "indicators": "[]",
                "rationale": None if is_error else "a made-up reason",
                "raw_response": None if is_error else '{"made": "up"}',
                "response_sec": 4.5,
                "processed_at": "2025-01-01 10:05:00",
                "error_occurred": 0,
                "error_message": "Timeout was reached" if is_error else None,
                "prompt_tokens": 300,
                "completion_tokens": 40,
                "tokens_used": 340,
                "is_true_positive": judged[0],
                "is_true_negative": judged[1],
                "is_false_positive": judged[2],
                "is_false_negative": judged[3],
            }
            | columns,
        )


@contextmanager
def writing_legacy(path: Path, generation: str) -> Iterator[LegacyDatabase]:
    """A new file of that generation, committed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in GENERATIONS[generation]:
            db.execute(statement)
        yield LegacyDatabase(db)


def read_rows(path: Path, statement: str, *values: object) -> list[dict[str, Any]]:
    """What another program reads of a file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(statement, values)]


def dump(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table of a file, by column name."""
    names = [
        row["name"] for row in read_rows(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]
    return {name: read_rows(path, f"SELECT * FROM {name} ORDER BY rowid") for name in names}
