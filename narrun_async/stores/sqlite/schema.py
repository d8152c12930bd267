"""The tables as they are now: column → declaration, in order; `migrations` brings databases to them."""

from __future__ import annotations

from collections.abc import Mapping

# Columns in the predecessor's order; every name is read by R scripts that go on working. Ours follow after the gap.
SOURCE_NARRATIVES = {
    "narrative_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "incident_id": "TEXT",
    "narrative_type": "TEXT",
    "narrative_text": "TEXT",
    "manual_flag_ind": "INTEGER",
    "manual_flag": "INTEGER",
    "data_source": "TEXT",
    "data_checksum": "TEXT",
    "loaded_at": "TEXT",
    "text_sha256": "TEXT",
    "text_flags": "TEXT",  # '' or names of `TextFlag`, separated by commas; NULL: nobody has looked
    "incident_year": "INTEGER",  # NULL: the file did not say, or nobody read it when the file was loaded
    "same_text_as": "INTEGER",  # the first narrative of the source with this text, where that is another one
}

EXPERIMENTS = {
    "experiment_id": "TEXT PRIMARY KEY",
    "experiment_name": "TEXT",
    "status": "TEXT",
    "model_name": "TEXT",
    "model_provider": "TEXT",
    "temperature": "REAL",
    "system_prompt": "TEXT",
    "user_template": "TEXT",
    "prompt_version": "TEXT",
    "prompt_author": "TEXT",
    "run_seed": "INTEGER",
    "data_file": "TEXT",
    "n_narratives_total": "INTEGER",
    "n_narratives_processed": "INTEGER",
    "n_narratives_skipped": "INTEGER",
    "n_narratives_completed": "INTEGER",
    "last_progress_update": "TEXT",
    "estimated_completion_time": "TEXT",
    "start_time": "TEXT",
    "end_time": "TEXT",
    "total_runtime_sec": "REAL",
    "avg_time_per_narrative_sec": "REAL",
    "api_url": "TEXT",
    "r_version": "TEXT",
    "os_info": "TEXT",
    "hostname": "TEXT",
    "n_positive_detected": "INTEGER",
    "n_negative_detected": "INTEGER",
    "n_positive_manual": "INTEGER",
    "n_negative_manual": "INTEGER",
    "accuracy": "REAL",
    "precision_ipv": "REAL",
    "recall_ipv": "REAL",
    "f1_ipv": "REAL",
    "n_false_positive": "INTEGER",
    "n_false_negative": "INTEGER",
    "n_true_positive": "INTEGER",
    "n_true_negative": "INTEGER",
    "pct_overlap_with_manual": "REAL",
    "csv_file": "TEXT",
    "json_file": "TEXT",
    "log_dir": "TEXT",
    "created_at": "TEXT",
    "notes": "TEXT",
    # ours
    "config_json": "TEXT",
    "config_sha256": "TEXT",
    "config_file": "TEXT",
    "cohort_last_narrative_id": "INTEGER",
    "data_checksum": "TEXT",
    "n_errors": "INTEGER",
    "narrun_version": "TEXT",
    "python_version": "TEXT",
    "system_prompt_sha256": "TEXT",
    "user_template_sha256": "TEXT",
    "sweep_id": "TEXT REFERENCES sweeps(sweep_id)",
    "sweep_position": "INTEGER",
    "sweep_settings": "TEXT",
    # `response_format: auto`: what the endpoint was found to obey, and every later run asks for
    "answer_format": "TEXT",
    "skip_placeholders": "INTEGER",
    "ask_identical_once": "INTEGER",
    "placeholder_rules": "TEXT",
}

NARRATIVE_RESULTS = {
    "result_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT REFERENCES experiments(experiment_id)",
    "incident_id": "TEXT",
    "narrative_type": "TEXT",
    "row_num": "INTEGER",
    "narrative_text": "TEXT",
    "manual_flag_ind": "INTEGER",
    "manual_flag": "INTEGER",
    "detected": "INTEGER",
    "confidence": "REAL",
    "indicators": "TEXT",
    "rationale": "TEXT",
    "reasoning_steps": "TEXT",
    "raw_response": "TEXT",
    "response_sec": "REAL",
    "processed_at": "TEXT",
    "error_occurred": "INTEGER DEFAULT 0",
    "error_message": "TEXT",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "tokens_used": "INTEGER",
    "is_true_positive": "INTEGER",
    "is_true_negative": "INTEGER",
    "is_false_positive": "INTEGER",
    "is_false_negative": "INTEGER",
    # ours
    "error_category": "TEXT",
    "attempt_count": "INTEGER",
    "first_error_message": "TEXT",
    "last_attempt_at": "TEXT",
    "finish_reason": "TEXT",
    "response_model": "TEXT",
    "system_fingerprint": "TEXT",
    "parse_method": "TEXT",
    "cached_tokens": "INTEGER",
    "reasoning_tokens": "INTEGER",
    "run_id": "INTEGER REFERENCES runs(run_id)",
    "skip_reason": "TEXT",
    "copied_from": "INTEGER",  # narrative_id of the one that was asked
}

# One row a process life. Times are UTC, ISO 8601; runtime_s is monotonic and advances with every commit, so that a
# killed run's time is known to the last of them.
RUNS = {
    "run_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "mode": "TEXT NOT NULL",
    "selection": "TEXT NOT NULL",
    "host": "TEXT",
    "pid": "INTEGER",
    "narrun_version": "TEXT",
    "concurrency": "",  # a number, or `auto`
    "api_url": "TEXT",
    "api_url_overridden": "INTEGER NOT NULL DEFAULT 0",
    "started_at": "TEXT NOT NULL",
    "last_saved_at": "TEXT",
    "ended_at": "TEXT",
    "runtime_s": "REAL NOT NULL DEFAULT 0",
    "n_saved": "INTEGER NOT NULL DEFAULT 0",
    "exit_code": "INTEGER",
    "ended_why": "TEXT",
}

# Append-only ledger of physical calls; error_category NULL means the call produced a success row.
ATTEMPTS = {
    "attempt_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL",
    "run_id": "INTEGER NOT NULL REFERENCES runs(run_id)",
    "narrative_id": "INTEGER NOT NULL",
    "started_at": "TEXT NOT NULL",
    "duration_s": "REAL NOT NULL",
    "error_category": "TEXT",
    "error_message": "TEXT",
    "http_status": "INTEGER",
    "charged": "INTEGER NOT NULL",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    # of a batch; NULL for a call that was answered at once
    "batch_id": "INTEGER REFERENCES batches(batch_id)",
}

# Who has answered for an experiment, in the order in which they were met; an empty text where nothing was said.
SERVINGS = {
    "serving_id": "INTEGER PRIMARY KEY",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "model": "TEXT NOT NULL",
    "system_fingerprint": "TEXT NOT NULL",
    "server": "TEXT NOT NULL",
    "run_id": "INTEGER REFERENCES runs(run_id)",
    "first_seen_at": "TEXT",
}

# Narratives that were asked again although their results stand; times are UTC.
CANARY_ANSWERS = {
    "canary_id": "INTEGER PRIMARY KEY",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "run_id": "INTEGER NOT NULL REFERENCES runs(run_id)",
    "narrative_id": "INTEGER NOT NULL",
    "asked_at": "TEXT",
    "duration_s": "REAL",
    "detected": "INTEGER",
    "confidence": "REAL",
    "error_category": "TEXT",
    "error_message": "TEXT",
    "response_model": "TEXT",
    "system_fingerprint": "TEXT",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
}

# One row a `narrun scrub`: since then the texts up to last_narrative_id are gone, and nobody need miss them.
SCRUBS = {
    "scrub_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "scrubbed_at": "TEXT NOT NULL",
    "narrun_version": "TEXT NOT NULL",
    "host": "TEXT NOT NULL",
    "last_narrative_id": "INTEGER NOT NULL",
    "n_narratives": "INTEGER NOT NULL",
    "n_results": "INTEGER NOT NULL",
    "n_calls": "INTEGER NOT NULL",
}

# Every prompt once, however many experiments have it; the columns of `experiments` hold it, too, for R readers.
PROMPTS = {
    "sha256": "TEXT PRIMARY KEY",
    "prompt_text": "TEXT NOT NULL",
    "first_used_at": "TEXT",
}

# Experiments that were made together; each knows its sweep and its place in it.
SWEEPS = {
    "sweep_id": "TEXT PRIMARY KEY",
    "sweep_name": "TEXT NOT NULL UNIQUE",
    "definition_sha256": "TEXT NOT NULL",
    "sweep_file": "TEXT",
    "notes": "TEXT",
    "created_at": "TEXT",
}

# Narratives that were drawn for people to read. What they said is kept, import by import; the latest one counts.
REVIEWS = {
    "review_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "drawn_at": "TEXT NOT NULL",
    "seed": "INTEGER NOT NULL",
    "strata": "TEXT NOT NULL",
    "bands": "TEXT NOT NULL",
    "allocation": "TEXT NOT NULL",
    "n_population": "INTEGER NOT NULL",
    "n_drawn": "INTEGER NOT NULL",
    "narrun_version": "TEXT NOT NULL",
}
REVIEW_ITEMS = {
    "review_id": "INTEGER NOT NULL REFERENCES reviews(review_id)",
    "item_key": "TEXT NOT NULL",
    "narrative_id": "INTEGER NOT NULL",
    "stratum": "TEXT NOT NULL",
    "stratum_size": "INTEGER NOT NULL",
    "stratum_drawn": "INTEGER NOT NULL",
}
REVIEW_WORKBOOKS = {
    "workbook_id": "TEXT PRIMARY KEY",
    "review_id": "INTEGER NOT NULL REFERENCES reviews(review_id)",
    "reader": "TEXT NOT NULL",
    "role": "TEXT NOT NULL",
    "is_blinded": "INTEGER NOT NULL",
    "written_at": "TEXT NOT NULL",
    "path": "TEXT NOT NULL",
    "item_keys": "TEXT NOT NULL",
}
REVIEW_IMPORTS = {
    "import_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "workbook_id": "TEXT NOT NULL REFERENCES review_workbooks(workbook_id)",
    "imported_at": "TEXT NOT NULL",
    "file_name": "TEXT NOT NULL",
    "file_sha256": "TEXT NOT NULL",
}
REVIEW_LABELS = {
    "import_id": "INTEGER NOT NULL REFERENCES review_imports(import_id)",
    "item_key": "TEXT NOT NULL",
    "label": "TEXT NOT NULL",
    "comment": "TEXT",
}
REVIEW_TABLES: Mapping[str, Mapping[str, str]] = {
    "reviews": REVIEWS,
    "review_items": REVIEW_ITEMS,
    "review_workbooks": REVIEW_WORKBOOKS,
    "review_imports": REVIEW_IMPORTS,
    "review_labels": REVIEW_LABELS,
}

# One row a file of requests that was, or is to be, handed to a provider. Times are UTC, ISO 8601.
BATCHES = {
    "batch_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "number": "INTEGER NOT NULL",
    "selection": "TEXT NOT NULL",
    "state": "TEXT NOT NULL",
    "input_path": "TEXT NOT NULL",
    "input_sha256": "TEXT NOT NULL",
    "endpoint": "TEXT NOT NULL",
    "n_requests": "INTEGER NOT NULL",
    "n_bytes": "INTEGER NOT NULL",
    "token": "TEXT NOT NULL",
    "n_resubmissions": "INTEGER NOT NULL DEFAULT 0",
    "exported_at": "TEXT NOT NULL",
    "intended_at": "TEXT",
    "api_url": "TEXT",
    "remote_file_id": "TEXT",
    "remote_batch_id": "TEXT",
    "remote_status": "TEXT",
    "remote_complaint": "TEXT",
    "output_file_id": "TEXT",
    "error_file_id": "TEXT",
    "n_completed": "INTEGER",
    "n_failed": "INTEGER",
    "polled_at": "TEXT",
    "closed_at": "TEXT",
    "closed_why": "TEXT",
    "keeps_files": "INTEGER NOT NULL DEFAULT 0",
}

# Which narratives are in a batch, and what they were then: rank, and whether an error row is to be replaced.
BATCH_ITEMS = {
    "batch_id": "INTEGER NOT NULL REFERENCES batches(batch_id)",
    "narrative_id": "INTEGER NOT NULL",
    "row_num": "INTEGER NOT NULL",
    "replaces_error": "INTEGER NOT NULL",
}

# One row a look at all texts of a data source; the latest one of it is in force.
SCREENINGS = {
    "screening_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "data_checksum": "TEXT NOT NULL",
    "rules_name": "TEXT NOT NULL",
    "rules_sha256": "TEXT NOT NULL",
    "screened_at": "TEXT NOT NULL",
    "n_screened": "INTEGER NOT NULL",
    "n_placeholder": "INTEGER NOT NULL",
    "n_near_empty": "INTEGER NOT NULL",
    "n_truncated": "INTEGER NOT NULL",
    "n_identical": "INTEGER NOT NULL",
}

# One row a file that was loaded: what it held besides the narratives that are in the database.
INGESTS = {
    "ingest_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "data_checksum": "TEXT NOT NULL",
    "ingested_at": "TEXT NOT NULL",
    "n_cases": "INTEGER NOT NULL",
    "n_blank": "INTEGER NOT NULL",
    "n_blank_ids": "INTEGER NOT NULL",
    "n_texts_repaired": "INTEGER NOT NULL",
    "n_duplicates": "INTEGER NOT NULL",
    "n_conflicts_dropped": "INTEGER NOT NULL",
}

#: what `legacy_results` has beside every column of `narrative_results`
OF_LEGACY_RESULTS = {
    "set_aside_at": "TEXT NOT NULL",
    "why": "TEXT NOT NULL",
    "report_id": "INTEGER NOT NULL REFERENCES legacy_reports(report_id)",
}

# One row for each experiment of which rows were set aside, each time. Times are UTC. No reference to `experiments`: the
# predecessor did not enforce its own, and its rows must not get lost over that.
LEGACY_REPORTS = {
    "report_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT",
    "reason": "TEXT NOT NULL",
    "set_aside_at": "TEXT NOT NULL",
    "narrun_version": "TEXT NOT NULL",
    "n_before": "INTEGER NOT NULL",
    "n_moved": "INTEGER NOT NULL",
}

# One row for each value of the predecessor's that was overwritten; row_key is the key of the row in its table.
LEGACY_CHANGES = {
    "change_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "changed_at": "TEXT NOT NULL",
    "narrun_version": "TEXT NOT NULL",
    "why": "TEXT NOT NULL",
    "table_name": "TEXT NOT NULL",
    "row_key": "TEXT NOT NULL",
    "column_name": "TEXT NOT NULL",
    "old_value": "",
    "new_value": "",
}

#: what step 1 makes or adopts
TABLES: Mapping[str, Mapping[str, str]] = {
    "source_narratives": SOURCE_NARRATIVES,
    "experiments": EXPERIMENTS,
    "runs": RUNS,
    "narrative_results": NARRATIVE_RESULTS,
    "attempts": ATTEMPTS,
}

OUR_TABLES = frozenset(
    {
        *TABLES,
        *REVIEW_TABLES,
        *("servings", "canary_answers", "scrubs", "prompts", "sweeps", "batches", "batch_items", "screenings"),
        *("ingests", "legacy_results", "legacy_reports", "legacy_changes"),
    }
)

# Only what a query of ours or of the R readers needs; the predecessor's ten doubled the cost of a row.
UNIQUE_KEYS = {
    "source_narratives": ("incident_id", "narrative_type"),
    "narrative_results": ("experiment_id", "incident_id", "narrative_type"),
}
INDEXES = (
    "CREATE INDEX IF NOT EXISTS source_narratives_checksum ON source_narratives(data_checksum)",
    "CREATE INDEX IF NOT EXISTS narrative_results_errors ON narrative_results(experiment_id) WHERE error_occurred = 1",
    "CREATE INDEX IF NOT EXISTS attempts_failed ON attempts(experiment_id, narrative_id)"
    " WHERE error_category IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS runs_experiment ON runs(experiment_id)",
)

#: of few rows each, or of none
SCREENING_INDEXES = (
    "CREATE INDEX IF NOT EXISTS source_narratives_flagged ON source_narratives(data_checksum) WHERE text_flags <> ''",
    "CREATE INDEX IF NOT EXISTS source_narratives_repeats ON source_narratives(data_checksum)"
    " WHERE same_text_as IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS narrative_results_skipped ON narrative_results(experiment_id)"
    " WHERE skip_reason IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS narrative_results_copied ON narrative_results(experiment_id)"
    " WHERE copied_from IS NOT NULL",
)
