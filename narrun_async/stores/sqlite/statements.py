"""Every SQL statement of the Store over SQLite, by name; another database has the same names with its own SQL."""

from __future__ import annotations

from narrun_async.models import SECOND_TRY, RunMode, TextFlag

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
                               data_source, data_checksum, loaded_at, text_sha256, text_flags, incident_year)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (incident_id, narrative_type) DO NOTHING
"""

INSERT_INGEST = """
INSERT INTO ingests (data_checksum, ingested_at, n_cases, n_blank, n_blank_ids, n_texts_repaired, n_duplicates,
                     n_conflicts_dropped)
VALUES (:checksum, :ingested_at, :n_cases, :n_blank, :n_blank_ids, :n_texts_repaired, :n_duplicates,
        :n_conflicts_dropped)
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
IDENTIFY_SCREENINGS = "UPDATE screenings SET data_checksum = :checksum WHERE data_checksum = :identity"

SUMMARISE_SOURCE = """
SELECT COALESCE(SUM(narrative_type = 'cme'), 0) AS n_cme, COALESCE(SUM(narrative_type = 'le'), 0) AS n_le,
       COUNT(manual_flag_ind) AS n_labelled, COALESCE(SUM(manual_flag_ind = 1), 0) AS n_positive
FROM source_narratives WHERE data_checksum = :checksum
"""

# --- screening -------------------------------------------------------------------------------------------------------

#: texts that were scrubbed cannot be looked at
PAGE_TEXTS = """
SELECT narrative_id, narrative_text, text_flags FROM source_narratives
WHERE data_checksum IS :checksum AND narrative_id > :after AND narrative_text IS NOT NULL
ORDER BY narrative_id LIMIT :limit
"""

SET_FLAGS = "UPDATE source_narratives SET text_flags = ? WHERE narrative_id = ?"

#: 3.4 s for a million narratives, 7 % of them repeats
MARK_REPEATS = """
UPDATE source_narratives SET same_text_as = first.narrative_id
FROM (SELECT text_sha256, MIN(narrative_id) AS narrative_id FROM source_narratives
      WHERE data_checksum IS :checksum AND text_sha256 IS NOT NULL GROUP BY text_sha256 HAVING COUNT(*) > 1) AS first
WHERE source_narratives.data_checksum IS :checksum AND source_narratives.text_sha256 = first.text_sha256
    AND source_narratives.narrative_id <> first.narrative_id
    AND source_narratives.same_text_as IS NOT first.narrative_id
"""


def _flag_is(flag: TextFlag) -> str:
    return f"INSTR(',' || s.text_flags || ',', ',{flag.value},') > 0"


_IS_PLACEHOLDER = _flag_is(TextFlag.PLACEHOLDER)

#: the flagged texts and the repeats are few, and have an index each; a cohort ends at :last_narrative_id
COUNT_FLAGS = f"""
SELECT
    {", ".join(f"COALESCE(SUM({_flag_is(flag)}), 0) AS n_{flag.value}" for flag in TextFlag)},
    (SELECT COUNT(*) FROM source_narratives AS s INDEXED BY source_narratives_repeats
     WHERE s.data_checksum IS :checksum AND s.same_text_as IS NOT NULL AND s.narrative_id <= :last_narrative_id
         AND NOT COALESCE({_IS_PLACEHOLDER}, 0)
    ) AS n_identical
FROM source_narratives AS s INDEXED BY source_narratives_flagged
WHERE s.data_checksum IS :checksum AND s.text_flags <> '' AND s.narrative_id <= :last_narrative_id
"""

COUNT_SCREENED = """
SELECT COUNT(*) FROM source_narratives WHERE data_checksum IS :checksum AND text_flags IS NOT NULL
"""

LOAD_SCREENING = """
SELECT rules_name, rules_sha256, screened_at, n_screened, n_placeholder, n_near_empty, n_truncated, n_identical
FROM screenings WHERE data_checksum = :checksum ORDER BY screening_id DESC LIMIT 1
"""

INSERT_SCREENING = """
INSERT INTO screenings (data_checksum, rules_name, rules_sha256, screened_at, n_screened, n_placeholder, n_near_empty,
                        n_truncated, n_identical)
VALUES (:checksum, :rules_name, :rules_sha256, :screened_at, :n_screened, :n_placeholder, :n_near_empty,
        :n_truncated, :n_identical)
"""

LOAD_COHORT = """
SELECT COALESCE(MAX(narrative_id), 0) AS last_narrative_id, COUNT(*) AS n_narratives
FROM (SELECT narrative_id FROM source_narratives WHERE data_checksum = :checksum
      ORDER BY narrative_id LIMIT :limit)
"""

# --- experiments and runs --------------------------------------------------------------------------------------------

LOAD_EXPERIMENT = "SELECT * FROM experiments WHERE experiment_id = :experiment_id"

LIST_EXPERIMENTS = "SELECT * FROM experiments ORDER BY created_at DESC, rowid DESC"

INSERT_PROMPT = "INSERT INTO prompts VALUES (?, ?, ?) ON CONFLICT (sha256) DO NOTHING"

INSERT_SWEEP = """
INSERT INTO sweeps (sweep_id, sweep_name, definition_sha256, sweep_file, notes, created_at)
VALUES (:sweep_id, :sweep_name, :definition_sha256, :sweep_file, :notes, :created_at)
"""

FIND_SWEEP = "SELECT * FROM sweeps WHERE sweep_name = :name"

LIST_SWEEP = "SELECT * FROM experiments WHERE sweep_id = :sweep_id ORDER BY sweep_position"

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
SELECT run_id, mode, selection, concurrency, started_at, ended_at, runtime_s, n_saved, exit_code, ended_why,
       host, narrun_version, api_url, api_url_overridden
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

#: not a placeholder that is skipped
_IS_NO_SKIP = f"(NOT :skips_placeholders OR NOT COALESCE({_IS_PLACEHOLDER}, 0))"
#: not a text that another narrative is asked for
_IS_FIRST = "(NOT :asks_identical_once OR s.same_text_as IS NULL)"

#: an error row that this run has not written itself
_OPEN_ERROR = "r.error_occurred = 1 AND r.run_id IS NOT :run_id"

PAGE_MISSING = f"""
SELECT {_ITEM_COLUMNS}, 0 AS replaces_error FROM source_narratives AS s {_JOIN_RESULTS}
WHERE {_IN_COHORT} AND r.result_id IS NULL AND {_IS_NO_SKIP} AND {_IS_FIRST}
ORDER BY s.narrative_id LIMIT :limit
"""

PAGE_ERRORS = f"""
SELECT {_ITEM_COLUMNS}, 1 AS replaces_error FROM narrative_results AS r
CROSS JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
WHERE r.experiment_id = :experiment_id AND {_OPEN_ERROR} AND {_IN_COHORT} AND {_IS_FIRST}
ORDER BY s.narrative_id LIMIT :limit
"""

PAGE_MISSING_AND_ERRORS = f"""
SELECT {_ITEM_COLUMNS}, r.result_id IS NOT NULL AS replaces_error FROM source_narratives AS s {_JOIN_RESULTS}
WHERE {_IN_COHORT} AND ((r.result_id IS NULL AND {_IS_NO_SKIP}) OR ({_OPEN_ERROR})) AND {_IS_FIRST}
ORDER BY s.narrative_id LIMIT :limit
"""

#: the cohort between two narratives, to rank the items of a page
IDS_BETWEEN = """
SELECT narrative_id FROM source_narratives
WHERE data_checksum = :data_checksum AND narrative_id > :after AND narrative_id <= :until ORDER BY narrative_id
"""

_HAS_NO_ROW = """
NOT EXISTS (SELECT 1 FROM narrative_results AS r WHERE r.experiment_id = :experiment_id
            AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type)
"""

PAGE_SKIPS = f"""
SELECT s.narrative_id FROM source_narratives AS s INDEXED BY source_narratives_flagged
WHERE {_IN_COHORT} AND s.text_flags <> '' AND {_IS_PLACEHOLDER} AND {_HAS_NO_ROW}
ORDER BY s.narrative_id LIMIT :limit
"""

_ORIGINAL = """
CROSS JOIN source_narratives AS f ON f.narrative_id = {narrative}
CROSS JOIN narrative_results AS o
    ON o.experiment_id = :experiment_id AND o.incident_id = f.incident_id AND o.narrative_type = f.narrative_type
"""

#: repeats whose original has a row, and that have none themselves or an error that is older than that row
PAGE_COPIES = f"""
SELECT s.narrative_id, s.same_text_as AS original_id, o.error_occurred, o.error_category,
       r.result_id IS NOT NULL AS replaces_error
FROM source_narratives AS s INDEXED BY source_narratives_repeats
{_ORIGINAL.format(narrative="s.same_text_as")} {_JOIN_RESULTS}
WHERE {_IN_COHORT} AND s.same_text_as IS NOT NULL AND o.skip_reason IS NULL
    AND CASE WHEN r.result_id IS NULL THEN :takes_missing ELSE r.error_occurred = 1 AND o.run_id > r.run_id END
ORDER BY s.narrative_id LIMIT :limit
"""

#: error rows of copies, and how many of those have fallen behind their originals
COUNT_COPIED_ERRORS = f"""
SELECT COUNT(*) AS n_errors, COALESCE(SUM(o.run_id > r.run_id), 0) AS n_behind
FROM narrative_results AS r INDEXED BY narrative_results_errors
{_ORIGINAL.format(narrative="r.copied_from")}
WHERE r.experiment_id = :experiment_id AND r.error_occurred = 1 AND r.copied_from IS NOT NULL
"""

COUNT_UNCALLED = f"""
SELECT
    (SELECT COUNT(*) FROM source_narratives AS s INDEXED BY source_narratives_flagged
     WHERE :skips_placeholders AND {_IN_COHORT} AND s.text_flags <> '' AND {_IS_PLACEHOLDER} AND {_HAS_NO_ROW}
    ) AS n_to_skip,
    (SELECT COUNT(*) FROM source_narratives AS s INDEXED BY source_narratives_repeats
     WHERE :asks_identical_once AND {_IN_COHORT} AND s.same_text_as IS NOT NULL AND {_IS_NO_SKIP} AND {_HAS_NO_ROW}
    ) AS n_to_copy
"""

#: the first narratives of the cohort that were asked and have a success
LOAD_CANARIES = f"""
SELECT {_ITEM_COLUMNS}, 0 AS replaces_error FROM source_narratives AS s
CROSS JOIN narrative_results AS r
    ON r.experiment_id = :experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
WHERE {_IN_COHORT} AND r.error_occurred = 0 AND r.skip_reason IS NULL AND r.copied_from IS NULL
ORDER BY s.narrative_id LIMIT :limit
"""

#: from indexes alone: 0.06 s of CPU for a million rows, where reading them took 0.7
COUNT_RESULTS = """
SELECT
    (SELECT COUNT(*) FROM narrative_results WHERE experiment_id = :experiment_id) AS n_rows,
    (SELECT COUNT(*) FROM narrative_results WHERE experiment_id = :experiment_id AND error_occurred = 1) AS n_errors,
    (SELECT COUNT(*) FROM narrative_results WHERE experiment_id = :experiment_id AND skip_reason IS NOT NULL
    ) AS n_skipped,
    (SELECT COUNT(*) FROM narrative_results WHERE experiment_id = :experiment_id AND copied_from IS NOT NULL
    ) AS n_copied
"""

# --- writing ---------------------------------------------------------------------------------------------------------

INSERT_ATTEMPT = """
INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, error_category, error_message,
                      http_status, charged, prompt_tokens, completion_tokens, batch_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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

#: ?1 experiment, ?2 narrative, ?3 rank, ?4 reason, ?5 local time, ?6 run
INSERT_SKIP = """
INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, row_num, narrative_text, manual_flag_ind,
                               manual_flag, error_occurred, skip_reason, processed_at, attempt_count, run_id)
SELECT ?1, incident_id, narrative_type, ?3, narrative_text, manual_flag_ind, manual_flag, 0, ?4, ?5, 0, ?6
FROM source_narratives WHERE narrative_id = ?2
ON CONFLICT (experiment_id, incident_id, narrative_type) DO NOTHING
"""

#: what a copy shares with its original: the answer, and who gave it; never tokens or times, which were paid once
COPIED_COLUMNS = (
    "detected",
    "confidence",
    "indicators",
    "rationale",
    "reasoning_steps",
    "raw_response",
    "error_occurred",
    "error_message",
    "error_category",
    "finish_reason",
    "response_model",
    "system_fingerprint",
    "parse_method",
)
#: a copy is judged by its own label
_JUDGED = {
    name: f"CASE WHEN o.detected IS NOT NULL AND s.manual_flag_ind IS NOT NULL THEN {condition} END"
    for name, condition in {
        "is_true_positive": "o.detected = 1 AND s.manual_flag_ind <> 0",
        "is_true_negative": "o.detected = 0 AND s.manual_flag_ind = 0",
        "is_false_positive": "o.detected = 1 AND s.manual_flag_ind = 0",
        "is_false_negative": "o.detected = 0 AND s.manual_flag_ind <> 0",
    }.items()
}
_OF_COPIES = (*COPIED_COLUMNS, *_JUDGED, "processed_at", "run_id")


def _insert_copy() -> str:
    """?1 experiment, ?2 narrative, ?3 its original, ?4 rank, ?5 local time, ?6 run."""
    return f"""
INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, row_num, narrative_text, manual_flag_ind,
                               manual_flag, copied_from, attempt_count, first_error_message, {", ".join(_OF_COPIES)})
SELECT ?1, s.incident_id, s.narrative_type, ?4, s.narrative_text, s.manual_flag_ind,
       s.manual_flag, ?3, 0, o.error_message, {", ".join(f"o.{name}" for name in COPIED_COLUMNS)},
       {", ".join(_JUDGED.values())}, ?5, ?6
FROM source_narratives AS s
CROSS JOIN source_narratives AS f ON f.narrative_id = ?3
CROSS JOIN narrative_results AS o
    ON o.experiment_id = ?1 AND o.incident_id = f.incident_id AND o.narrative_type = f.narrative_type
WHERE s.narrative_id = ?2 AND o.skip_reason IS NULL AND o.copied_from IS NULL
"""


INSERT_COPY = f"{_insert_copy()} ON CONFLICT (experiment_id, incident_id, narrative_type) DO NOTHING"

#: brings a copied error up to its original; like REPLACE_ERROR it can never touch a success
REPLACE_COPY = f"""
{_insert_copy()}
ON CONFLICT (experiment_id, incident_id, narrative_type) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _OF_COPIES)},
    first_error_message = COALESCE(narrative_results.first_error_message, narrative_results.error_message)
WHERE narrative_results.error_occurred = 1 AND narrative_results.copied_from = excluded.copied_from
    AND narrative_results.run_id < excluded.run_id
"""

COUNT_UP_EXPERIMENT = """
UPDATE experiments SET
    n_narratives_processed = COALESCE(n_narratives_processed, 0) + :new_rows,
    n_narratives_completed = COALESCE(n_narratives_completed, 0) + :new_rows,
    n_narratives_skipped = COALESCE(n_narratives_skipped, 0) + :new_skipped,
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

COUNT_SECOND_TRIES = f"""
SELECT COUNT(*) FROM narrative_results WHERE experiment_id = :experiment_id AND parse_method LIKE '%{SECOND_TRY}'
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

# --- human review -----------------------------------------------------------------------------------------------------

#: narratives of the cohort with an answer, and the answer of the other narrative of the case
#: what the predecessor wrote may be no number
_CONFIDENCE = (
    "CASE WHEN TYPEOF(r.confidence) IN ('real', 'integer') AND r.confidence BETWEEN 0 AND 1 THEN r.confidence END"
)
_REVIEW_UNITS = f"""
SELECT s.narrative_id, r.detected, {_CONFIDENCE} AS confidence, s.narrative_text IS NOT NULL AS has_text,
       {{has_both}} AS has_both, COALESCE(p.error_occurred = 0 AND p.detected <> r.detected, 0) AS disagrees
FROM source_narratives AS s
CROSS JOIN narrative_results AS r
    ON r.experiment_id = :experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
LEFT JOIN source_narratives AS o
    ON o.incident_id = s.incident_id AND o.narrative_type <> s.narrative_type
    AND o.data_checksum IS s.data_checksum AND ({{in_cohort}})
LEFT JOIN narrative_results AS p
    ON p.experiment_id = :experiment_id AND p.incident_id = o.incident_id AND p.narrative_type = o.narrative_type
WHERE {{is_unit}} r.error_occurred = 0 AND r.detected IS NOT NULL
ORDER BY s.narrative_id
"""

LIST_REVIEW_UNITS = _REVIEW_UNITS.format(
    has_both="o.narrative_id IS NOT NULL",
    in_cohort="o.narrative_id <= :last_narrative_id",
    is_unit="s.data_checksum = :data_checksum AND s.narrative_id <= :last_narrative_id AND",
)

#: the same of an experiment whose cohort nobody recorded: what has a row is all that is known of it
LIST_REVIEW_UNITS_OF_ROWS = _REVIEW_UNITS.format(has_both="p.result_id IS NOT NULL", in_cohort="TRUE", is_unit="")

INSERT_REVIEW = """
INSERT INTO reviews (experiment_id, drawn_at, seed, strata, bands, allocation, n_population, n_drawn, narrun_version)
VALUES (:experiment_id, :drawn_at, :seed, :strata, :bands, :allocation, :n_population, :n_drawn, :narrun_version)
"""

INSERT_REVIEW_ITEM = """
INSERT INTO review_items (review_id, item_key, narrative_id, stratum, stratum_size, stratum_drawn)
VALUES (?, ?, ?, ?, ?, ?)
"""

INSERT_REVIEW_WORKBOOK = """
INSERT INTO review_workbooks (workbook_id, review_id, reader, role, is_blinded, written_at, path, item_keys)
VALUES (:workbook_id, :review_id, :reader, :role, :is_blinded, :written_at, :path, :item_keys)
"""

INSERT_REVIEW_IMPORT = """
INSERT INTO review_imports (workbook_id, imported_at, file_name, file_sha256)
VALUES (:workbook_id, :imported_at, :file_name, :file_sha256)
"""

INSERT_REVIEW_LABEL = "INSERT INTO review_labels (import_id, item_key, label, comment) VALUES (?, ?, ?, ?)"

LIST_REVIEWS = "SELECT * FROM reviews ORDER BY review_id"

LIST_REVIEW_ITEMS = "SELECT * FROM review_items WHERE review_id = :review_id ORDER BY item_key"

LIST_REVIEW_WORKBOOKS = "SELECT * FROM review_workbooks WHERE review_id = :review_id ORDER BY rowid"

FIND_REVIEW_WORKBOOK = "SELECT review_id FROM review_workbooks WHERE workbook_id = :workbook_id"

#: of each workbook, what its latest import says
LIST_REVIEW_LABELS = """
SELECT i.workbook_id, i.file_sha256, l.item_key, l.label, l.comment
FROM review_imports AS i
JOIN review_workbooks AS w ON w.workbook_id = i.workbook_id
LEFT JOIN review_labels AS l ON l.import_id = i.import_id
WHERE w.review_id = :review_id
    AND i.import_id = (SELECT MAX(import_id) FROM review_imports WHERE workbook_id = i.workbook_id)
ORDER BY i.import_id, l.item_key
"""

LIST_REVIEW_NARRATIVES = """
SELECT t.item_key, s.narrative_id, s.incident_id, s.narrative_type, s.narrative_text, r.detected, r.confidence,
       r.indicators, r.rationale
FROM review_items AS t
JOIN reviews AS v ON v.review_id = t.review_id
JOIN source_narratives AS s ON s.narrative_id = t.narrative_id
LEFT JOIN narrative_results AS r
    ON r.experiment_id = v.experiment_id AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
WHERE t.review_id = :review_id ORDER BY t.item_key
"""

#: a verdict of the predecessor may stand beside an error, or be missing without one; both are errors here. Its rows may
#: be without an id or a type, too
_COHORT_COLUMNS = f"""
    COALESCE({{origin}}.incident_id, '') AS incident_id,
    COALESCE({{origin}}.narrative_type, 'no type') AS narrative_type,
    {{origin}}.manual_flag_ind, {{origin}}.manual_flag,
    LENGTH(s.narrative_text) AS text_chars, s.text_flags, r.result_id IS NOT NULL AS has_result,
    CASE WHEN r.error_occurred = 1 THEN NULL ELSE r.detected END AS detected,
    {_CONFIDENCE} AS confidence,
    CASE WHEN r.error_occurred = 1 THEN COALESCE(r.error_category, 'unknown')
         WHEN r.result_id IS NOT NULL AND r.detected IS NULL AND r.skip_reason IS NULL THEN 'no_verdict'
    END AS error_category,
    r.skip_reason, r.copied_from, s.incident_year
"""

ITER_COHORT = f"""
SELECT {_COHORT_COLUMNS.replace("{origin}", "s")} FROM source_narratives AS s {_JOIN_RESULTS}
WHERE s.data_checksum = :data_checksum AND s.narrative_id <= :last_narrative_id
ORDER BY s.narrative_id
"""

#: the same of an experiment whose cohort nobody recorded: the predecessor's, of which only the rows are known
ITER_ROWS_AS_COHORT = f"""
SELECT {_COHORT_COLUMNS.replace("{origin}", "r")} FROM narrative_results AS r
LEFT JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
WHERE r.experiment_id = :experiment_id
ORDER BY r.row_num, r.result_id
"""

#: Sorted are the ids alone. Sorting whole rows would put every narrative into a temporary file of SQLite, outside the
#: database's directory, and takes 1.4 s for 42,000 of them instead of 1.0. LIMIT keeps the inner order, CROSS JOIN
#: follows it.
ITER_RESULTS = """
SELECT r.* FROM (
    SELECT result_id FROM narrative_results WHERE experiment_id = :experiment_id ORDER BY row_num, result_id LIMIT -1
) AS ordered
CROSS JOIN narrative_results AS r ON r.result_id = ordered.result_id
"""

# --- the report -------------------------------------------------------------------------------------------------------

LOAD_INGEST = """
SELECT n_cases, n_blank, n_blank_ids, n_texts_repaired, n_duplicates, n_conflicts_dropped
FROM ingests WHERE data_checksum = :checksum ORDER BY ingest_id LIMIT 1
"""

ITER_CALLS = """
SELECT run_id, started_at, duration_s, error_category FROM attempts
WHERE experiment_id = :experiment_id AND batch_id IS NULL ORDER BY attempt_id
"""

ITER_INDICATORS = """
SELECT detected, indicators FROM narrative_results
WHERE experiment_id = :experiment_id AND error_occurred = 0 AND detected IN (0, 1)
ORDER BY result_id
"""

LIST_SERVING_USES = """
SELECT v.model, v.system_fingerprint, v.server, v.run_id, v.first_seen_at, COALESCE(n.n_results, 0) AS n_results
FROM servings AS v
LEFT JOIN (
    SELECT COALESCE(response_model, '') AS model, COALESCE(system_fingerprint, '') AS system_fingerprint,
           COUNT(*) AS n_results
    FROM narrative_results WHERE experiment_id = :experiment_id GROUP BY 1, 2
) AS n ON n.model = v.model AND n.system_fingerprint = v.system_fingerprint
WHERE v.experiment_id = :experiment_id ORDER BY v.serving_id
"""
