"""What must hold of the rows after every fault, one query for each invariant, which finds nothing while it holds.

Every query yields `place` (where: ids and keys, never a text) and `is_inherited` (1: a row of the predecessor, which is
shown and not counted as ours), and takes `:experiment_id`, NULL for all of them. `sha256_hex` is a function of ours.

A row is the predecessor's where it has no run_id; an experiment where it has no stored configuration; a narrative where
its file is not known by a SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from narrun_async.models import BatchState, ErrorCategory, ExperimentStatus, SkipReason
from narrun_async.stores.sqlite.statements import COPIED_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """One promise and the query that looks for what breaks it."""

    invariant_id: str
    sentence: str
    statement: str = field(repr=False)
    #: one row with a sentence about what could not be looked at, and need not be; or no row
    remark: str | None = field(default=None, repr=False)


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


# --- what the queries have in common ---------------------------------------------------------------------------------

_RESULT = "r.experiment_id || ' ' || COALESCE(r.incident_id, '?') || '/' || COALESCE(r.narrative_type, '?')"
_NARRATIVE = "COALESCE(s.incident_id, '?') || '/' || COALESCE(s.narrative_type, '?')"
_RESULT_IN_SCOPE = "(:experiment_id IS NULL OR r.experiment_id = :experiment_id)"
_EXPERIMENT_IN_SCOPE = "(:experiment_id IS NULL OR e.experiment_id = :experiment_id)"
_NARRATIVE_IN_SCOPE = """
(:experiment_id IS NULL OR EXISTS (
    SELECT 1 FROM experiments AS e WHERE e.experiment_id = :experiment_id
    AND s.data_checksum = e.data_checksum AND s.narrative_id <= e.cohort_last_narrative_id))
"""
_OF_ROW = "r.run_id IS NULL"
_OF_EXPERIMENT = "e.config_json IS NULL"
_OF_NARRATIVE = "COALESCE(LENGTH(s.data_checksum), 0) <> 64"

_N_RESULTS = "(SELECT COUNT(*) FROM narrative_results AS r WHERE r.experiment_id = e.experiment_id)"
_N_ERROR_ROWS = """
(SELECT COUNT(*) FROM narrative_results AS r WHERE r.experiment_id = e.experiment_id AND r.error_occurred = 1)
"""
_N_REMAINING = """
(SELECT COUNT(*) FROM source_narratives AS s
 WHERE s.data_checksum = e.data_checksum AND s.narrative_id <= e.cohort_last_narrative_id AND NOT EXISTS (
     SELECT 1 FROM narrative_results AS r WHERE r.experiment_id = e.experiment_id
     AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type))
"""

# --- the queries -----------------------------------------------------------------------------------------------------

_FILE_IS_SOUND = """
SELECT integrity_check AS place, 0 AS is_inherited FROM pragma_integrity_check WHERE integrity_check <> 'ok'
UNION ALL
SELECT 'row ' || f.rowid || ' of ' || f."table" || ' refers to a row of ' || f.parent || ' that does not exist',
       f."table" = 'narrative_results'
       AND (SELECT run_id IS NULL FROM narrative_results WHERE result_id = f.rowid)
FROM pragma_foreign_key_check AS f
"""

# Rows that name no narrative are not known to be of the same one; I6 finds them.
_ONE_ROW_A_KEY = f"""
SELECT {_RESULT} || ': ' || COUNT(*) || ' rows' AS place, MIN({_OF_ROW}) AS is_inherited
FROM narrative_results AS r
WHERE {_RESULT_IN_SCOPE} AND r.experiment_id IS NOT NULL AND r.incident_id IS NOT NULL AND r.narrative_type IS NOT NULL
GROUP BY r.experiment_id, r.incident_id, r.narrative_type HAVING COUNT(*) > 1
"""

# An experiment of the predecessor has no frozen cohort; its narratives must at least be known.
_IN_COHORT = f"""
SELECT {_RESULT} AS place, {_OF_ROW} AS is_inherited
FROM narrative_results AS r
JOIN experiments AS e ON e.experiment_id = r.experiment_id
LEFT JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
WHERE {_RESULT_IN_SCOPE} AND (s.narrative_id IS NULL OR (
    NOT ({_OF_EXPERIMENT})
    AND NOT COALESCE(s.data_checksum = e.data_checksum AND s.narrative_id <= e.cohort_last_narrative_id, 0)))
"""

_NOTHING_LOST = f"""
WITH counted AS (
    SELECT e.experiment_id, e.n_narratives_total AS n_total, {_N_RESULTS} AS n_results, {_N_REMAINING} AS n_remaining
    FROM experiments AS e WHERE {_EXPERIMENT_IN_SCOPE} AND NOT ({_OF_EXPERIMENT})
)
SELECT experiment_id || ': ' || n_results || ' results and ' || n_remaining || ' remaining of '
       || COALESCE(n_total, 'an unknown number') AS place, 0 AS is_inherited
FROM counted WHERE n_results + n_remaining IS NOT n_total
"""

_SUCCESS = """
r.error_occurred = 0 AND r.detected IN (0, 1) AND r.error_category IS NULL AND r.error_message IS NULL
AND (r.confidence IS NULL OR r.confidence BETWEEN 0 AND 1) AND r.skip_reason IS NULL
"""
_ERROR = """
r.error_occurred = 1 AND TRIM(r.error_category) <> '' AND r.detected IS NULL AND r.confidence IS NULL
AND r.skip_reason IS NULL
"""
_SKIP = f"""
r.skip_reason IN ({_quoted(tuple(SkipReason))}) AND r.error_occurred = 0 AND r.detected IS NULL
AND r.confidence IS NULL AND r.error_category IS NULL AND r.error_message IS NULL AND r.copied_from IS NULL
"""
_SUCCESS_ERROR_OR_SKIP = f"""
SELECT {_RESULT} AS place, {_OF_ROW} AS is_inherited FROM narrative_results AS r
WHERE {_RESULT_IN_SCOPE} AND NOT COALESCE({_SUCCESS}, 0) AND NOT COALESCE({_ERROR}, 0) AND NOT COALESCE({_SKIP}, 0)
"""


def _is_key_text(column: str) -> str:
    # As bytes, because most functions of SQLite take a text to end at NUL.
    return f"(TYPEOF({column}) = 'text' AND INSTR(CAST({column} AS BLOB), x'00') = 0)"


_STORAGE_TYPES = f"""
SELECT {_RESULT} AS place, {_OF_ROW} AS is_inherited FROM narrative_results AS r
WHERE {_RESULT_IN_SCOPE} AND NOT (
    {_is_key_text("r.incident_id")} AND {_is_key_text("r.narrative_type")} AND {_is_key_text("r.experiment_id")}
    AND TYPEOF(r.detected) IN ('integer', 'null') AND TYPEOF(r.confidence) IN ('real', 'integer', 'null'))
UNION ALL
SELECT 'narrative ' || s.narrative_id || ': ' || {_NARRATIVE}, {_OF_NARRATIVE} FROM source_narratives AS s
WHERE {_NARRATIVE_IN_SCOPE} AND NOT ({_is_key_text("s.incident_id")} AND {_is_key_text("s.narrative_type")})
"""

_STATUS_IS_TRUE = f"""
WITH counted AS (
    SELECT e.experiment_id, e.status, e.n_errors, {_OF_EXPERIMENT} AS is_inherited, {_N_ERROR_ROWS} AS n_error_rows,
           CASE WHEN {_OF_EXPERIMENT} THEN MAX(COALESCE(e.n_narratives_total, 0) - {_N_RESULTS}, 0)
                ELSE {_N_REMAINING} END AS n_missing
    FROM experiments AS e WHERE {_EXPERIMENT_IN_SCOPE}
)
SELECT experiment_id || ': completed, and ' || n_missing || ' narratives are missing' AS place, is_inherited
FROM counted WHERE status = '{ExperimentStatus.COMPLETED.value}' AND n_missing > 0
UNION ALL
SELECT experiment_id || ': ' || n_error_rows || ' error rows that its record does not mention', is_inherited
FROM counted WHERE n_error_rows > 0 AND COALESCE(n_errors, 0) = 0
UNION ALL
SELECT experiment_id || ': its status is none of ours', is_inherited
FROM counted WHERE COALESCE(status, '') NOT IN ({_quoted(tuple(ExperimentStatus))})
"""

_SETTINGS_HASH = f"""
SELECT e.experiment_id AS place, 0 AS is_inherited FROM experiments AS e
WHERE {_EXPERIMENT_IN_SCOPE} AND e.config_sha256 IS NOT sha256_hex(CAST(e.config_json AS BLOB))
"""

# Error rows that no call stands behind: the text had changed, or a defect of ours came before the call.
_WITHOUT_A_CALL = (ErrorCategory.SOURCE_CHANGED, ErrorCategory.INTERNAL)
# A batch that was stored twice has its calls twice in the ledger, each with the same beginning and duration.
_LEDGER = f"""
WITH calls AS (
    SELECT experiment_id, narrative_id, COUNT(error_category) AS n_failed,
           MIN(CASE WHEN error_category IS NULL THEN attempt_id END) AS success_id
    FROM attempts WHERE :experiment_id IS NULL OR experiment_id = :experiment_id
    GROUP BY experiment_id, narrative_id
)
SELECT {_RESULT} || ': no call in the ledger' AS place, 0 AS is_inherited
FROM narrative_results AS r
CROSS JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
LEFT JOIN calls ON calls.experiment_id = r.experiment_id AND calls.narrative_id = s.narrative_id
WHERE {_RESULT_IN_SCOPE} AND r.run_id IS NOT NULL AND r.skip_reason IS NULL AND r.copied_from IS NULL AND (
    (r.error_occurred = 0 AND calls.success_id IS NULL)
    OR (r.error_occurred = 1 AND COALESCE(r.error_category, '') NOT IN ({_quoted(_WITHOUT_A_CALL)})
        AND COALESCE(calls.n_failed, 0) = 0))
UNION ALL
SELECT {_RESULT} || ': it was called for, and its row says that it was not', 0
FROM experiments AS e
CROSS JOIN narrative_results AS r ON r.experiment_id = e.experiment_id
CROSS JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
JOIN calls ON calls.experiment_id = r.experiment_id AND calls.narrative_id = s.narrative_id
WHERE {_EXPERIMENT_IN_SCOPE} AND (e.skip_placeholders = 1 OR e.ask_identical_once = 1)
    AND (r.skip_reason IS NOT NULL OR r.copied_from IS NOT NULL)
UNION ALL
SELECT a.experiment_id || ' narrative ' || a.narrative_id || ': call ' || a.attempt_id || ' came after its success', 0
FROM calls
JOIN attempts AS first ON first.attempt_id = calls.success_id
JOIN attempts AS a ON a.experiment_id = calls.experiment_id AND a.narrative_id = calls.narrative_id
WHERE a.attempt_id > calls.success_id AND (a.started_at <> first.started_at OR a.duration_s <> first.duration_s)
    AND NOT EXISTS (
        SELECT 1 FROM attempts AS same WHERE same.experiment_id = a.experiment_id
        AND same.narrative_id = a.narrative_id AND same.error_category = a.error_category
        AND same.started_at = a.started_at AND same.duration_s = a.duration_s AND same.attempt_id < calls.success_id)
"""

# A text that is gone without a record of it is a violation.
_SCRUBBED = """
s.narrative_text IS NULL AND s.text_sha256 IS NOT NULL
AND EXISTS (SELECT 1 FROM scrubs WHERE scrubs.last_narrative_id >= s.narrative_id)
"""
_TEXT_HASH = f"""
SELECT 'narrative ' || s.narrative_id || ': ' || {_NARRATIVE} AS place, 0 AS is_inherited
FROM source_narratives AS s
WHERE {_NARRATIVE_IN_SCOPE} AND s.text_sha256 IS NOT sha256_hex(CAST(s.narrative_text AS BLOB)) AND NOT ({_SCRUBBED})
"""
_NOT_COMPARED = f"""
SELECT COUNT(*) || ' texts were scrubbed on ' || (SELECT MAX(scrubbed_at) FROM scrubs)
       || ': their hashes are kept, and there is nothing to compare them with'
FROM source_narratives AS s WHERE {_NARRATIVE_IN_SCOPE} AND {_SCRUBBED} HAVING COUNT(*) > 0
"""

#: column of `experiments` → the same from rows; kept with every commit
_RUNNING_COUNTERS = {
    "n_narratives_processed": "n_rows",
    "n_narratives_completed": "n_rows",
    "n_errors": "n_error_rows",
}
#: likewise, counted when a run ends
_FINAL_COUNTERS = {
    "n_narratives_skipped": "n_skipped",
    "n_positive_detected": "n_detected",
    "n_negative_detected": "n_not_detected",
    "n_true_positive": "n_tp",
    "n_false_positive": "n_fp",
    "n_false_negative": "n_fn",
    "n_true_negative": "n_tn",
    "n_positive_manual": "n_tp + n_fn",
    "n_negative_manual": "n_fp + n_tn",
}


def _counters() -> str:
    names = ("n_rows", "n_error_rows", "n_skipped", "n_detected", "n_not_detected", "n_tp", "n_fp", "n_fn", "n_tn")
    counted = ", ".join(f"COALESCE(a.{name}, 0) AS {name}" for name in names)
    place = "experiment_id || ': {kept} is ' || COALESCE({kept}, 'empty') || ', the rows say ' || ({counted})"
    running = [
        f"SELECT {place.format(kept=kept, counted=counted)} AS place, is_inherited FROM compared"
        f" WHERE {kept} IS NOT ({counted}) AND NOT (is_inherited AND {kept} IS NULL)"
        for kept, counted in _RUNNING_COUNTERS.items()
    ]
    final = [
        f"SELECT {place.format(kept=kept, counted=counted)}, 0 FROM compared"
        f" WHERE NOT is_inherited AND status <> '{ExperimentStatus.RUNNING.value}' AND {kept} IS NOT ({counted})"
        for kept, counted in _FINAL_COUNTERS.items()
    ]
    return f"""
WITH actual AS (
    SELECT r.experiment_id, COUNT(*) AS n_rows, SUM(r.error_occurred = 1) AS n_error_rows,
           COUNT(r.skip_reason) AS n_skipped, SUM(r.detected = 1) AS n_detected, SUM(r.detected = 0) AS n_not_detected,
           SUM(r.is_true_positive) FILTER (WHERE r.error_occurred = 0) AS n_tp,
           SUM(r.is_false_positive) FILTER (WHERE r.error_occurred = 0) AS n_fp,
           SUM(r.is_false_negative) FILTER (WHERE r.error_occurred = 0) AS n_fn,
           SUM(r.is_true_negative) FILTER (WHERE r.error_occurred = 0) AS n_tn
    FROM narrative_results AS r WHERE {_RESULT_IN_SCOPE} GROUP BY r.experiment_id
),
compared AS (
    SELECT e.*, {_OF_EXPERIMENT} AS is_inherited, {counted}
    FROM experiments AS e LEFT JOIN actual AS a ON a.experiment_id = e.experiment_id WHERE {_EXPERIMENT_IN_SCOPE}
)
{" UNION ALL ".join(running + final)}
"""


_TIMES = f"""
SELECT 'run ' || e.run_id || ' of ' || e.experiment_id || ': it ended before it began' AS place, 0 AS is_inherited
FROM runs AS e
WHERE {_EXPERIMENT_IN_SCOPE} AND NOT COALESCE(
    JULIANDAY(COALESCE(e.ended_at, e.started_at)) >= JULIANDAY(e.started_at), 0)
UNION ALL
SELECT 'run ' || e.run_id || ' of ' || e.experiment_id || ': a negative duration', 0
FROM runs AS e WHERE {_EXPERIMENT_IN_SCOPE} AND NOT COALESCE(e.runtime_s >= 0, 0)
UNION ALL
SELECT 'call ' || e.attempt_id || ' of ' || e.experiment_id || ': a negative duration', 0
FROM attempts AS e WHERE {_EXPERIMENT_IN_SCOPE} AND NOT COALESCE(e.duration_s >= 0, 0)
UNION ALL
SELECT {_RESULT} || ': a negative duration', {_OF_ROW}
FROM narrative_results AS r WHERE {_RESULT_IN_SCOPE} AND r.response_sec < 0
"""

# What is in two open batches is asked for, and paid, twice.
_BATCHES = f"""
SELECT e.experiment_id || ' narrative ' || i.narrative_id || ': in ' || COUNT(*) || ' open batches' AS place,
       0 AS is_inherited
FROM batches AS e JOIN batch_items AS i ON i.batch_id = e.batch_id
WHERE {_EXPERIMENT_IN_SCOPE} AND e.state <> '{BatchState.CLOSED.value}'
GROUP BY e.experiment_id, i.narrative_id HAVING COUNT(*) > 1
UNION ALL
SELECT 'batch ' || e.number || ' of ' || e.experiment_id || ': it does not know all of its narratives', 0
FROM batches AS e
WHERE {_EXPERIMENT_IN_SCOPE} AND e.n_requests <> (
    SELECT COUNT(*) FROM batch_items AS i WHERE i.batch_id = e.batch_id)
"""

_WITHOUT_LEAVE = f"""
SELECT {_RESULT} || ': skipped, and its experiment skips nothing' AS place, 0 AS is_inherited
FROM experiments AS e CROSS JOIN narrative_results AS r ON r.experiment_id = e.experiment_id
WHERE {_EXPERIMENT_IN_SCOPE} AND e.skip_placeholders IS NOT 1 AND r.skip_reason IS NOT NULL
UNION ALL
SELECT {_RESULT} || ': a copy, and its experiment asks every narrative', 0
FROM experiments AS e CROSS JOIN narrative_results AS r ON r.experiment_id = e.experiment_id
WHERE {_EXPERIMENT_IN_SCOPE} AND e.ask_identical_once IS NOT 1 AND r.copied_from IS NOT NULL
"""

# A killed run can leave a copied error behind its original, which was asked again; the next run brings it up to that.
_COPIES = f"""
SELECT {_RESULT} || ': ' || CASE
           WHEN o.result_id IS NULL THEN 'there is no row of the narrative that it is a copy of'
           WHEN f.text_sha256 IS NOT s.text_sha256 THEN 'its text is not that of the narrative that it is a copy of'
           WHEN o.copied_from IS NOT NULL OR o.skip_reason IS NOT NULL THEN 'a copy of a row that nobody asked for'
           ELSE 'it differs from the row that it is a copy of' END AS place, 0 AS is_inherited
FROM experiments AS e
CROSS JOIN narrative_results AS r ON r.experiment_id = e.experiment_id
LEFT JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
LEFT JOIN source_narratives AS f ON f.narrative_id = r.copied_from
LEFT JOIN narrative_results AS o
    ON o.experiment_id = r.experiment_id AND o.incident_id = f.incident_id AND o.narrative_type = f.narrative_type
WHERE {_EXPERIMENT_IN_SCOPE} AND e.ask_identical_once = 1 AND r.copied_from IS NOT NULL AND (
    o.result_id IS NULL OR f.text_sha256 IS NOT s.text_sha256 OR o.copied_from IS NOT NULL OR o.skip_reason IS NOT NULL
    OR (({" OR ".join(f"r.{name} IS NOT o.{name}" for name in COPIED_COLUMNS)})
        AND NOT (r.error_occurred = 1 AND o.run_id > r.run_id
                 AND e.status <> '{ExperimentStatus.COMPLETED.value}')))
"""

# The rows that a report counts must be there, and must not be among the results any more.
_SET_ASIDE = """
SELECT 'report ' || p.report_id || ' on ' || COALESCE(p.experiment_id, 'no experiment') || ': ' || COUNT(l.report_id)
       || ' of ' || p.n_moved || ' results are there' AS place, 0 AS is_inherited
FROM legacy_reports AS p LEFT JOIN legacy_results AS l ON l.report_id = p.report_id
WHERE :experiment_id IS NULL OR p.experiment_id = :experiment_id
GROUP BY p.report_id HAVING COUNT(l.report_id) <> p.n_moved
UNION ALL
SELECT 'result ' || l.result_id || ' of ' || COALESCE(l.experiment_id, 'no experiment') || ': twice in the file', 0
FROM legacy_results AS l JOIN narrative_results AS r ON r.result_id = l.result_id AND r.experiment_id = l.experiment_id
    AND r.incident_id = l.incident_id AND r.narrative_type = l.narrative_type
WHERE :experiment_id IS NULL OR l.experiment_id = :experiment_id
"""

_REMARKS = {"I11": _NOT_COMPARED}

INVARIANTS = tuple(
    Invariant(invariant_id=invariant_id, sentence=sentence, statement=statement, remark=_REMARKS.get(invariant_id))
    for invariant_id, sentence, statement in (
        ("I1", "the file is sound, and no row refers to one that does not exist", _FILE_IS_SOUND),
        ("I2", "no narrative has two rows in one experiment", _ONE_ROW_A_KEY),
        ("I3", "no result lies outside its experiment's frozen cohort", _IN_COHORT),
        ("I4", "results and remaining narratives make up the total", _NOTHING_LOST),
        ("I5", "every row is a full success, a categorised error or a skip with its reason", _SUCCESS_ERROR_OR_SKIP),
        ("I6", "ids are text, detected is an integer, confidence a number", _STORAGE_TYPES),
        ("I7", "the status is true: completed only when nothing is missing, errors are counted", _STATUS_IS_TRUE),
        ("I8", "the stored settings have the hash that was stored with them", _SETTINGS_HASH),
        ("I10", "every result that was asked for has its calls in the ledger, none after a success", _LEDGER),
        ("I11", "every narrative's text has the hash recorded when it was loaded", _TEXT_HASH),
        ("I13", "the counters of the experiments equal the rows", _counters()),
        ("I14", "no run ended before it began, no duration is negative", _TIMES),
        ("I20", "nothing is skipped or copied where every narrative is to be asked", _WITHOUT_LEAVE),
        ("I21", "a copy equals the row of the narrative that was asked, whose text it has", _COPIES),
        ("I22", "no narrative is in two open batches, and every batch knows its narratives", _BATCHES),
        ("I23", "results that were set aside are all there, and only there", _SET_ASIDE),
    )
)
