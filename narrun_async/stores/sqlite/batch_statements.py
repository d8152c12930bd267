"""The SQL of batches, by name; as `statements`."""

from __future__ import annotations

from narrun_async.models import BatchState

#: as `batching.states.OPEN`: every state but the last
IS_OPEN = f"state <> '{BatchState.CLOSED.value}'"

INSERT_BATCH = f"""
INSERT INTO batches (experiment_id, number, selection, state, input_path, input_sha256, endpoint, n_requests, n_bytes,
                     token, exported_at)
VALUES (:experiment_id, :number, :selection, '{BatchState.EXPORTED.value}', :input_path, :input_sha256, :endpoint,
        :n_requests, :n_bytes, :token, :exported_at)
"""

INSERT_BATCH_ITEM = "INSERT INTO batch_items (batch_id, narrative_id, row_num, replaces_error) VALUES (?, ?, ?, ?)"

LOAD_BATCH = "SELECT * FROM batches WHERE batch_id = :batch_id"

LIST_BATCHES = """
SELECT * FROM batches WHERE :experiment_id IS NULL OR experiment_id = :experiment_id ORDER BY batch_id
"""

#: only from the state in which it was found: whoever comes second changes nothing
ADVANCE_BATCH = """
UPDATE batches SET {assignments} WHERE batch_id = :batch_id AND state = :was
"""

LIST_SPOKEN_FOR = f"""
SELECT i.narrative_id FROM batches AS b CROSS JOIN batch_items AS i ON i.batch_id = b.batch_id
WHERE b.experiment_id = :experiment_id AND b.{IS_OPEN} AND i.narrative_id > :after AND i.narrative_id <= :until
"""

#: a call of this batch, or a row that none of its answers may change any more
LOAD_MEMBERS = """
SELECT i.narrative_id, EXISTS (
    SELECT 1 FROM attempts AS a WHERE a.batch_id = i.batch_id AND a.narrative_id = i.narrative_id
) OR EXISTS (
    SELECT 1 FROM source_narratives AS s
    CROSS JOIN narrative_results AS r ON r.experiment_id = b.experiment_id
        AND r.incident_id = s.incident_id AND r.narrative_type = s.narrative_type
    WHERE s.narrative_id = i.narrative_id AND (r.error_occurred = 0 OR i.replaces_error = 0)
) AS is_done
FROM batches AS b CROSS JOIN batch_items AS i ON i.batch_id = b.batch_id WHERE b.batch_id = :batch_id
"""

#: for `json_each`, which takes any number of ids
LOAD_BATCH_ITEMS = """
SELECT s.narrative_id, s.incident_id, s.narrative_type, s.narrative_text, s.text_sha256,
       s.manual_flag_ind, s.manual_flag, i.row_num, i.replaces_error
FROM json_each(:narrative_ids) AS wanted
CROSS JOIN batch_items AS i ON i.batch_id = :batch_id AND i.narrative_id = wanted.value
CROSS JOIN source_narratives AS s ON s.narrative_id = i.narrative_id
"""

COUNT_RECORDED = """
SELECT a.batch_id, COUNT(DISTINCT a.narrative_id) AS n FROM attempts AS a
WHERE a.batch_id IS NOT NULL AND (:experiment_id IS NULL OR a.experiment_id = :experiment_id) GROUP BY a.batch_id
"""
