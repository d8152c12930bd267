"""Every SQL statement of the Store over SQLite, by name; another database has the same names with its own SQL."""

from __future__ import annotations

from narrun_async.models import RunMode

# --- sources ---------------------------------------------------------------------------------------------------------

_SOURCE_COLUMNS = """
SELECT data_source AS path, data_checksum AS checksum, COUNT(*) AS n_narratives, MAX(loaded_at) AS loaded_at
FROM source_narratives
"""

LIST_SOURCES = f"{_SOURCE_COLUMNS} GROUP BY data_checksum ORDER BY MIN(narrative_id)"

FIND_SOURCE = f"{_SOURCE_COLUMNS} WHERE data_checksum = :checksum GROUP BY data_checksum"

FIND_SOURCE_BY_PATH = f"""
{_SOURCE_COLUMNS} WHERE data_source = :path GROUP BY data_checksum ORDER BY MAX(narrative_id) DESC LIMIT 1
"""

#: the file as it is being read, without its texts: enough to find duplicates and conflicts
CREATE_INCOMING = """
CREATE TEMP TABLE IF NOT EXISTS incoming (
    incident_id TEXT NOT NULL, narrative_type TEXT NOT NULL, text_sha256 TEXT NOT NULL, file_row INTEGER NOT NULL
)
"""

CLEAR_INCOMING = "DELETE FROM incoming"

INSERT_INCOMING = "INSERT INTO incoming VALUES (?, ?, ?, ?)"

INSERT_SOURCE_NARRATIVE = """
INSERT INTO source_narratives (incident_id, narrative_type, narrative_text, manual_flag_ind, manual_flag,
                               data_source, data_checksum, loaded_at, text_sha256)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (incident_id, narrative_type) DO NOTHING
"""

MAX_NARRATIVE_ID = "SELECT COALESCE(MAX(narrative_id), 0) FROM source_narratives"

COUNT_INCOMING = """
SELECT COUNT(*) AS n_rows, COUNT(DISTINCT incident_id || char(31) || narrative_type) AS n_keys,
       COUNT(DISTINCT incident_id || char(31) || narrative_type || char(31) || text_sha256) AS n_texts
FROM incoming
"""

LIST_CONFLICTS = """
SELECT incident_id, narrative_type, GROUP_CONCAT(file_row, ', ') AS file_rows FROM incoming
GROUP BY incident_id, narrative_type HAVING COUNT(DISTINCT text_sha256) > 1 ORDER BY MIN(file_row) LIMIT :limit
"""

COUNT_CONFLICTS = """
SELECT COUNT(*) FROM (
    SELECT 1 FROM incoming GROUP BY incident_id, narrative_type HAVING COUNT(DISTINCT text_sha256) > 1
)
"""

#: keys of the file that were in the database before it, and how many of those have the same text
COUNT_KNOWN = """
SELECT COUNT(*) AS n_known, COALESCE(SUM(s.text_sha256 = i.text_sha256), 0) AS n_equal
FROM (SELECT incident_id, narrative_type, text_sha256, MIN(file_row) FROM incoming
      GROUP BY incident_id, narrative_type) AS i
CROSS JOIN source_narratives AS s
    ON s.incident_id = i.incident_id AND s.narrative_type = i.narrative_type
WHERE s.narrative_id <= :last_known_id
"""

FIND_KNOWN_SOURCE = f"""
{_SOURCE_COLUMNS}
WHERE data_checksum = (
    SELECT s.data_checksum FROM incoming AS i
    CROSS JOIN source_narratives AS s ON s.incident_id = i.incident_id AND s.narrative_type = i.narrative_type
    LIMIT 1)
GROUP BY data_checksum
"""

#: narratives whose file left no checksum, and experiments over them, are known by that of their workbook from now on
IDENTIFY_SOURCE = "UPDATE source_narratives SET data_checksum = :checksum WHERE data_checksum = :identity"
IDENTIFY_COHORTS = "UPDATE experiments SET data_checksum = :checksum WHERE data_checksum = :identity"

SUMMARISE_SOURCE = """
SELECT COALESCE(SUM(narrative_type = 'cme'), 0) AS n_cme, COALESCE(SUM(narrative_type = 'le'), 0) AS n_le,
       COUNT(manual_flag_ind) AS n_labelled, COALESCE(SUM(manual_flag_ind = 1), 0) AS n_positive
FROM source_narratives WHERE data_checksum = :checksum
"""

LOAD_COHORT = """
SELECT COALESCE(MAX(narrative_id), 0) AS last_narrative_id, COUNT(*) AS n_narratives
FROM (SELECT narrative_id FROM source_narratives WHERE data_checksum = :checksum
      ORDER BY narrative_id LIMIT :limit)
"""

# --- experiments and runs --------------------------------------------------------------------------------------------

LOAD_EXPERIMENT = "SELECT * FROM experiments WHERE experiment_id = :experiment_id"

LIST_EXPERIMENTS = "SELECT * FROM experiments ORDER BY created_at DESC, rowid DESC"

INSERT_RUN = """
INSERT INTO runs (experiment_id, mode, selection, host, pid, narrun_version, concurrency, api_url, api_url_overridden,
                  started_at)
VALUES (:experiment_id, :mode, :selection, :host, :pid, :narrun_version, :concurrency, :api_url, :api_url_overridden,
        :started_at)
"""

MARK_RUNNING = """
UPDATE experiments
SET status = 'running', start_time = COALESCE(start_time, :now_local), end_time = NULL, narrun_version = :narrun_version
WHERE experiment_id = :experiment_id
"""

END_RUN = """
UPDATE runs SET ended_at = :ended_at, runtime_s = :runtime_s, exit_code = :exit_code, ended_why = :ended_why
WHERE run_id = :run_id
"""

END_EXPERIMENT = """
UPDATE experiments SET
    status = :status,
    end_time = :now_local,
    estimated_completion_time = CASE WHEN :status = 'completed' THEN NULL ELSE estimated_completion_time END,
    total_runtime_sec = (SELECT SUM(runtime_s) FROM runs WHERE experiment_id = :experiment_id)
WHERE experiment_id = :experiment_id
"""

LIST_RUNS = """
SELECT run_id, mode, selection, concurrency, started_at, ended_at, runtime_s, n_saved, exit_code, ended_why
FROM runs WHERE experiment_id = :experiment_id ORDER BY run_id
"""

# --- the remaining set -----------------------------------------------------------------------------------------------

_ITEM_COLUMNS = """
    s.narrative_id, s.incident_id, s.narrative_type, s.narrative_text, s.text_sha256,
    s.manual_flag_ind, s.manual_flag
"""

_JOIN_RESULTS = """
LEFT JOIN narrative_results AS r
    ON r.experiment_id = :experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
"""

_IN_COHORT = "s.data_checksum = :data_checksum AND s.narrative_id > :after AND s.narrative_id <= :last_narrative_id"

#: an error row that this run has not written itself
_OPEN_ERROR = "r.error_occurred = 1 AND r.run_id IS NOT :run_id"

PAGE_MISSING = f"""
SELECT {_ITEM_COLUMNS}, 0 AS replaces_error FROM source_narratives AS s {_JOIN_RESULTS}
WHERE {_IN_COHORT} AND r.result_id IS NULL
ORDER BY s.narrative_id LIMIT :limit
"""

PAGE_ERRORS = f"""
SELECT {_ITEM_COLUMNS}, 1 AS replaces_error FROM narrative_results AS r
CROSS JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
WHERE r.experiment_id = :experiment_id AND {_OPEN_ERROR} AND {_IN_COHORT}
ORDER BY s.narrative_id LIMIT :limit
"""

PAGE_MISSING_AND_ERRORS = f"""
SELECT {_ITEM_COLUMNS}, r.result_id IS NOT NULL AS replaces_error FROM source_narratives AS s {_JOIN_RESULTS}
WHERE {_IN_COHORT} AND (r.result_id IS NULL OR ({_OPEN_ERROR}))
ORDER BY s.narrative_id LIMIT :limit
"""

#: the cohort between two narratives, to rank the items of a page
IDS_BETWEEN = """
SELECT narrative_id FROM source_narratives
WHERE data_checksum = :data_checksum AND narrative_id > :after AND narrative_id <= :until ORDER BY narrative_id
"""

#: the first narratives of the cohort that have a success
LOAD_CANARIES = f"""
SELECT {_ITEM_COLUMNS}, 0 AS replaces_error FROM source_narratives AS s
CROSS JOIN narrative_results AS r
    ON r.experiment_id = :experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
WHERE {_IN_COHORT} AND r.error_occurred = 0
ORDER BY s.narrative_id LIMIT :limit
"""

COUNT_RESULTS = """
SELECT COUNT(*) AS n_rows, COALESCE(SUM(error_occurred = 1), 0) AS n_errors
FROM narrative_results WHERE experiment_id = :experiment_id
"""

# --- writing ---------------------------------------------------------------------------------------------------------

INSERT_ATTEMPT = """
INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, error_category, error_message,
                      http_status, charged, prompt_tokens, completion_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

#: a server of which only model and fingerprint were known has said its name
COMPLETE_SERVING = """
UPDATE servings SET server = ?5 WHERE experiment_id = ?1 AND model = ?3 AND system_fingerprint = ?4 AND server = ''
    AND NOT EXISTS (SELECT 1 FROM servings WHERE experiment_id = ?1 AND model = ?3 AND system_fingerprint = ?4
                    AND server = ?5)
"""

INSERT_SERVING = """
INSERT INTO servings (experiment_id, run_id, model, system_fingerprint, server, first_seen_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (experiment_id, model, system_fingerprint, server) DO NOTHING
"""

INSERT_CANARY_ANSWER = """
INSERT INTO canary_answers (experiment_id, run_id, narrative_id, asked_at, duration_s, detected, confidence,
                            error_category, error_message, response_model, system_fingerprint, prompt_tokens,
                            completion_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

#: parameters of INSERT_RESULT in order; narrative_id only looks up the failed calls in the ledger
RESULT_COLUMNS = (
    "experiment_id",
    "incident_id",
    "narrative_type",
    "row_num",
    "narrative_text",
    "manual_flag_ind",
    "manual_flag",
    "detected",
    "confidence",
    "indicators",
    "rationale",
    "reasoning_steps",
    "raw_response",
    "response_sec",
    "processed_at",
    "error_occurred",
    "error_message",
    "prompt_tokens",
    "completion_tokens",
    "tokens_used",
    "is_true_positive",
    "is_true_negative",
    "is_false_positive",
    "is_false_negative",
    "error_category",
    "finish_reason",
    "response_model",
    "system_fingerprint",
    "parse_method",
    "cached_tokens",
    "reasoning_tokens",
    "last_attempt_at",
    "run_id",
)

_FAILED_CALLS = """
(SELECT COUNT(*) FROM attempts
 WHERE attempts.experiment_id = ?1 AND attempts.narrative_id = ?{narrative} AND attempts.error_category IS NOT NULL)
"""


def _insert_result() -> str:
    width = len(RESULT_COLUMNS)
    placeholders = ", ".join(f"?{number}" for number in range(1, width + 1))
    error_occurred = RESULT_COLUMNS.index("error_occurred") + 1
    error_message = RESULT_COLUMNS.index("error_message") + 1
    attempt_count = f"{_FAILED_CALLS.format(narrative=width + 1)} + (?{error_occurred} = 0)"
    return f"""
INSERT INTO narrative_results ({", ".join(RESULT_COLUMNS)}, first_error_message, attempt_count)
VALUES ({placeholders}, ?{error_message}, {attempt_count})
"""


_KEY = ("experiment_id", "incident_id", "narrative_type")
_KEPT_ON_RETRY = (*_KEY, "row_num", "narrative_text", "manual_flag_ind", "manual_flag")

INSERT_RESULT = f"{_insert_result()} ON CONFLICT (experiment_id, incident_id, narrative_type) DO NOTHING"

#: replaces an error row and can never touch a success; keeps the first error and goes on counting calls
REPLACE_ERROR = f"""
{_insert_result()}
ON CONFLICT (experiment_id, incident_id, narrative_type) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in RESULT_COLUMNS if name not in _KEPT_ON_RETRY)},
    first_error_message = COALESCE(narrative_results.first_error_message, narrative_results.error_message),
    attempt_count = MAX(excluded.attempt_count, COALESCE(narrative_results.attempt_count, 1) + 1)
WHERE narrative_results.error_occurred = 1
"""

COUNT_UP_EXPERIMENT = """
UPDATE experiments SET
    n_narratives_processed = COALESCE(n_narratives_processed, 0) + :new_rows,
    n_narratives_completed = COALESCE(n_narratives_completed, 0) + :new_rows,
    n_errors = COALESCE(n_errors, 0) + :new_errors,
    last_progress_update = :now_local,
    estimated_completion_time = :estimated_completion_time
WHERE experiment_id = :experiment_id
"""

COUNT_UP_RUN = """
UPDATE runs SET
    last_saved_at = MAX(:now_utc, COALESCE(last_saved_at, started_at)),
    runtime_s = MAX(runtime_s, :runtime_s),
    n_saved = n_saved + :saved
WHERE run_id = :run_id
"""

# --- results ---------------------------------------------------------------------------------------------------------

COUNT_CONFUSION = """
SELECT COALESCE(SUM(is_true_positive), 0) AS tp, COALESCE(SUM(is_false_positive), 0) AS fp,
       COALESCE(SUM(is_false_negative), 0) AS fn, COALESCE(SUM(is_true_negative), 0) AS tn
FROM narrative_results WHERE experiment_id = :experiment_id AND error_occurred = 0
"""

COUNT_DETECTED = """
SELECT COALESCE(SUM(detected = 1), 0) AS n_detected, COALESCE(SUM(detected = 0), 0) AS n_not_detected
FROM narrative_results WHERE experiment_id = :experiment_id
"""

COUNT_ERRORS = """
SELECT COALESCE(error_category, 'unknown') AS category, COUNT(*) AS n
FROM narrative_results WHERE experiment_id = :experiment_id AND error_occurred = 1
GROUP BY 1 ORDER BY 2 DESC, 1
"""

#: calls of the predecessor are not in the ledger: its rows hold their tokens, those that were set aside, too
SUM_TOKENS = f"""
SELECT COALESCE(SUM(prompt_tokens), 0) AS prompt_tokens, COALESCE(SUM(completion_tokens), 0) AS completion_tokens
FROM (SELECT prompt_tokens, completion_tokens FROM attempts WHERE experiment_id = :experiment_id
      UNION ALL
      SELECT prompt_tokens, completion_tokens FROM canary_answers WHERE experiment_id = :experiment_id
      UNION ALL
      SELECT prompt_tokens, completion_tokens FROM narrative_results
      WHERE experiment_id = :experiment_id AND run_id IS NULL AND (
          EXISTS (SELECT 1 FROM experiments WHERE experiment_id = :experiment_id AND config_json IS NULL)
          OR EXISTS (SELECT 1 FROM runs WHERE experiment_id = :experiment_id AND mode = '{RunMode.LEGACY.value}'))
      UNION ALL
      SELECT prompt_tokens, completion_tokens FROM legacy_results WHERE experiment_id = :experiment_id)
"""

LIST_SERVINGS = """
SELECT model, system_fingerprint, server FROM servings WHERE experiment_id = :experiment_id ORDER BY serving_id
"""

COUNT_CANARIES = """
SELECT COUNT(*) AS n_asked, COUNT(c.detected) AS n_answered,
       COALESCE(SUM(c.detected <> r.detected), 0) AS n_flipped
FROM canary_answers AS c
CROSS JOIN source_narratives AS s ON s.narrative_id = c.narrative_id
LEFT JOIN narrative_results AS r
    ON r.experiment_id = c.experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
WHERE c.experiment_id = :experiment_id
"""

ITER_RESULTS = "SELECT * FROM narrative_results WHERE experiment_id = :experiment_id ORDER BY row_num, result_id"
