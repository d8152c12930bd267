"""Every SQL statement about what the predecessor left, by name.

Those on duplicates and ids run on files of any version, so they read the predecessor's columns only.
"""

from __future__ import annotations

# --- duplicates ------------------------------------------------------------------------------------------------------

# NULL equals nothing, in a unique key neither: rows that do not name their narrative are not known to be of the same.
_NAMES_NARRATIVE = "experiment_id IS NOT NULL AND incident_id IS NOT NULL AND narrative_type IS NOT NULL"

# The files that have duplicates have no index: each of these statements reads the table once.
COUNT_DUPLICATES = f"""
WITH counted AS (
    SELECT experiment_id, COUNT(*) AS n_rows, {_NAMES_NARRATIVE} AND COUNT(*) > 1 AS is_repeated
    FROM narrative_results GROUP BY experiment_id, incident_id, narrative_type)
SELECT experiment_id, SUM(is_repeated) AS n_narratives, SUM(n_rows) AS n_before,
       SUM(CASE WHEN is_repeated THEN n_rows - 1 ELSE 0 END) AS n_moved
FROM counted GROUP BY experiment_id HAVING n_narratives > 0 ORDER BY experiment_id
"""

#: rows that are to be set aside; dropped again in the same transaction
_CHOOSE = "CREATE TEMP TABLE chosen AS"

#: all rows of a narrative but one: its newest success, else its newest error, else its newest row
CHOOSE_DUPLICATES = f"""
{_CHOOSE} WITH repeated AS (
    SELECT experiment_id, incident_id, narrative_type FROM narrative_results WHERE {_NAMES_NARRATIVE}
    GROUP BY experiment_id, incident_id, narrative_type HAVING COUNT(*) > 1),
ranked AS (
    SELECT r.result_id, r.experiment_id, FIRST_VALUE(r.result_id) OVER best AS kept_id, ROW_NUMBER() OVER best AS place
    FROM narrative_results AS r CROSS JOIN repeated
        ON repeated.experiment_id = r.experiment_id AND repeated.incident_id = r.incident_id
        AND repeated.narrative_type = r.narrative_type
    WINDOW best AS (
        PARTITION BY r.experiment_id, r.incident_id, r.narrative_type
        ORDER BY COALESCE(r.error_occurred = 0 AND r.detected IN (0, 1), 0) DESC,
                 COALESCE(r.error_occurred = 1, 0) DESC, r.result_id DESC))
SELECT result_id, experiment_id, 'duplicate: result ' || kept_id || ' of the same narrative was kept' AS why
FROM ranked WHERE place > 1
"""

_NARRATIVE_OF_RESULT = "s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type"

#: results that no narrative of the cohort has
CHOOSE_OUTSIDE = f"""
{_CHOOSE}
SELECT r.result_id, r.experiment_id,
       'outside the cohort: ' || CASE WHEN s.narrative_id IS NULL THEN 'no narrative has this id and type'
           ELSE 'its narrative came from ' || COALESCE(s.data_source, 'another source') END AS why
FROM narrative_results AS r LEFT JOIN source_narratives AS s ON {_NARRATIVE_OF_RESULT}
WHERE r.experiment_id = :experiment_id AND NOT COALESCE(
    s.data_checksum = :data_checksum AND s.narrative_id <= :last_narrative_id, 0)
"""

# --- setting aside ---------------------------------------------------------------------------------------------------

COUNT_CHOSEN = """
SELECT r.experiment_id, COUNT(*) AS n_before, COUNT(chosen.result_id) AS n_moved
FROM narrative_results AS r LEFT JOIN temp.chosen USING (result_id)
GROUP BY r.experiment_id HAVING n_moved > 0 ORDER BY r.experiment_id
"""

INSERT_REPORT = """
INSERT INTO legacy_reports (experiment_id, reason, set_aside_at, narrun_version, n_before, n_moved)
VALUES (:experiment_id, :reason, :set_aside_at, :narrun_version, :n_before, :n_moved)
"""

#: every column, whoever added it
MOVE_CHOSEN = """
INSERT INTO legacy_results ({names}, set_aside_at, why, report_id)
SELECT {values}, :set_aside_at, chosen.why, :report_id
FROM temp.chosen JOIN narrative_results AS r USING (result_id) WHERE chosen.experiment_id IS :experiment_id
"""

DELETE_CHOSEN = "DELETE FROM narrative_results WHERE result_id IN (SELECT result_id FROM temp.chosen)"

DROP_CHOSEN = "DROP TABLE temp.chosen"

LIST_REPORTS = """
SELECT experiment_id, reason, n_before, n_moved, set_aside_at FROM legacy_reports
WHERE :experiment_id IS NULL OR experiment_id = :experiment_id ORDER BY report_id
"""

# --- sources without a checksum --------------------------------------------------------------------------------------

#: needs text_sha256
ITER_UNIDENTIFIED = """
SELECT data_source, incident_id, narrative_type, text_sha256 FROM source_narratives
WHERE COALESCE(data_checksum, '') = '' ORDER BY data_source, narrative_id
"""

IDENTIFY_SOURCE = """
UPDATE source_narratives SET data_checksum = :identity
WHERE COALESCE(data_checksum, '') = '' AND data_source IS :path
"""

# --- ids -------------------------------------------------------------------------------------------------------------

#: more than what `models.read_odd_id` takes for odd
_SEEMS_ODD = "incident_id GLOB '[1-9]*e+[0-9]*' AND TYPEOF(incident_id) = 'text'"

LIST_ODD_IDS = f"""
SELECT incident_id FROM source_narratives WHERE {_SEEMS_ODD}
UNION SELECT incident_id FROM narrative_results WHERE {_SEEMS_ODD}
"""

LIST_ROWS_OF_IDS = """
SELECT 1 AS is_narrative, narrative_id AS row_id, NULL AS experiment_id, incident_id, narrative_type
FROM source_narratives WHERE incident_id IN (SELECT value FROM json_each(:ids))
UNION ALL
SELECT 0, result_id, experiment_id, incident_id, narrative_type
FROM narrative_results WHERE incident_id IN (SELECT value FROM json_each(:ids))
ORDER BY 1 DESC, 2
"""

REPAIR_NARRATIVE_ID = "UPDATE source_narratives SET incident_id = :new_value WHERE narrative_id = :row_key"

REPAIR_RESULT_ID = "UPDATE narrative_results SET incident_id = :new_value WHERE result_id = :row_key"

INSERT_CHANGE = """
INSERT INTO legacy_changes (changed_at, narrun_version, why, table_name, row_key, column_name, old_value, new_value)
VALUES (:changed_at, :narrun_version, :why, :table_name, :row_key, :column_name, :old_value, :new_value)
"""

# --- taking an experiment up -----------------------------------------------------------------------------------------

SURVEY_RESULTS = f"""
WITH judged AS (
    SELECT s.narrative_id, r.detected, r.is_true_positive, r.is_false_positive, r.is_false_negative,
           r.is_true_negative, r.response_sec, r.processed_at, s.narrative_id IS NOT NULL AS is_inside,
           r.error_occurred = 1 AS is_error, r.error_occurred = 0 AS is_answer
    FROM narrative_results AS r
    LEFT JOIN source_narratives AS s ON {_NARRATIVE_OF_RESULT} AND s.data_checksum = :data_checksum
    WHERE r.experiment_id = :experiment_id
)
SELECT COUNT(*) FILTER (WHERE is_inside AND is_error IS NOT 1) AS n_success,
       COUNT(*) FILTER (WHERE is_inside AND is_error) AS n_errors,
       COUNT(*) FILTER (WHERE NOT is_inside) AS n_outside,
       COALESCE(MAX(narrative_id), 0) AS last_narrative_id,
       COUNT(*) FILTER (WHERE is_inside AND detected = 1) AS n_detected,
       COUNT(*) FILTER (WHERE is_inside AND detected = 0) AS n_not_detected,
       COALESCE(SUM(is_true_positive) FILTER (WHERE is_inside AND is_answer), 0) AS n_true_positive,
       COALESCE(SUM(is_false_positive) FILTER (WHERE is_inside AND is_answer), 0) AS n_false_positive,
       COALESCE(SUM(is_false_negative) FILTER (WHERE is_inside AND is_answer), 0) AS n_false_negative,
       COALESCE(SUM(is_true_negative) FILTER (WHERE is_inside AND is_answer), 0) AS n_true_negative,
       TOTAL(response_sec) AS response_sec,
       MIN(processed_at) AS first_processed_at,
       MAX(processed_at) AS last_processed_at
FROM judged
"""

COUNT_UP_TO = """
SELECT COUNT(*) FROM source_narratives WHERE data_checksum = :data_checksum AND narrative_id <= :last_narrative_id
"""

INSERT_PAST_RUN = """
INSERT INTO runs (experiment_id, mode, selection, host, concurrency, api_url, started_at, last_saved_at, ended_at,
                  runtime_s, n_saved, ended_why)
VALUES (:experiment_id, :mode, :selection, :host, 1, :api_url, :started_at, :ended_at, :ended_at, :runtime_s, :n_saved,
        :ended_why)
"""

# --- what is there ---------------------------------------------------------------------------------------------------

COUNT_INHERITED = """
SELECT (SELECT COUNT(*) FROM experiments
        WHERE config_json IS NULL AND (:experiment_id IS NULL OR experiment_id = :experiment_id)) AS n_untouched,
       (SELECT COUNT(DISTINCT experiment_id) FROM runs
        WHERE mode = :mode AND (:experiment_id IS NULL OR experiment_id = :experiment_id)) AS n_adopted,
       (SELECT COUNT(*) FROM narrative_results
        WHERE run_id IS NULL AND (:experiment_id IS NULL OR experiment_id = :experiment_id)) AS n_results,
       (SELECT COUNT(*) FROM legacy_changes WHERE column_name = 'incident_id') AS n_ids_repaired,
       (SELECT COUNT(*) FROM legacy_changes WHERE table_name = 'experiments'
        AND (:experiment_id IS NULL OR row_key = :experiment_id)) AS n_columns_overwritten
"""
