"""Owns the questions that stand ready when browsing, as SQL over the tables that `BROWSED_COLUMNS` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query, by a name that can stand in an address."""

    name: str
    title: str
    description: str
    #: `{chosen}` stands for the choice of an experiment
    sql: str = field(repr=False)
    #: which results are behind the answer: column, with datasette's suffixes, → value; empty where that is no matter
    rows: Mapping[str, str] = field(default_factory=dict)

    def statement(self, *, asks_for_experiment: bool) -> str:
        """The SQL; where it asks, `:experiment` is the beginning of an id, and empty means all of them."""
        chosen = "e.experiment_id LIKE :experiment || '%'" if asks_for_experiment else "TRUE"
        return self.sql.strip().format(chosen=chosen)


QUESTIONS: Sequence[Question] = (
    Question(
        name="progress",
        title="Progress",
        description="How far each experiment is, newest first.",
        sql="""
SELECT e.experiment_name, e.status, e.n_narratives_total AS narratives, COUNT(r.result_id) AS done,
       ROUND(100.0 * COUNT(r.result_id) / NULLIF(e.n_narratives_total, 0), 1) AS percent,
       COALESCE(SUM(r.error_occurred = 0), 0) AS answers, COALESCE(SUM(r.error_occurred = 1), 0) AS errors,
       e.n_narratives_total - COUNT(r.result_id) AS missing, e.last_progress_update, e.estimated_completion_time,
       e.experiment_id
FROM experiments AS e LEFT JOIN narrative_results AS r ON r.experiment_id = e.experiment_id
WHERE {chosen} GROUP BY e.experiment_id ORDER BY e.created_at DESC
""",
    ),
    Question(
        name="errors_by_category",
        title="Errors by category",
        description="Rows without a usable answer, and why.",
        sql="""
SELECT e.experiment_name, COALESCE(r.error_category, 'recorded by the predecessor') AS error_category,
       COUNT(*) AS errors,
       ROUND(100.0 * COUNT(*) / (SELECT COUNT(*) FROM narrative_results AS every
                                 WHERE every.experiment_id = e.experiment_id), 2) AS percent_of_rows,
       MIN(r.processed_at) AS first, MAX(r.processed_at) AS last, e.experiment_id
FROM narrative_results AS r JOIN experiments AS e ON e.experiment_id = r.experiment_id
WHERE {chosen} AND r.error_occurred = 1
GROUP BY e.experiment_id, 2 ORDER BY e.created_at DESC, errors DESC
""",
        rows={"error_occurred": "1", "_sort": "error_category"},
    ),
    Question(
        name="disagreements_with_labels",
        title="Disagreements with labels",
        description="Narratives where the model's answer is not the manual label, the most confident answers first.",
        sql="""
SELECT r.result_id, e.experiment_name, r.incident_id, r.narrative_type, r.agreement, r.confidence, r.detected,
       r.manual_flag_ind, r.manual_flag
FROM narrative_results AS r JOIN experiments AS e ON e.experiment_id = r.experiment_id
WHERE {chosen} AND r.agreement IN ('false positive', 'false negative')
ORDER BY r.confidence DESC, r.result_id
""",
        rows={"agreement__in": "false positive,false negative", "_sort_desc": "confidence"},
    ),
    Question(
        name="detection_by_type",
        title="Detection by type",
        description="How many of the answers found intimate partner violence, by who wrote the narrative.",
        sql="""
SELECT e.experiment_name, r.narrative_type, COUNT(*) AS answers, SUM(r.detected) AS detected,
       ROUND(100.0 * AVG(r.detected), 2) AS percent, SUM(r.manual_flag_ind IS NOT NULL) AS labelled,
       SUM(r.manual_flag_ind = 1) AS labelled_positive, e.experiment_id
FROM narrative_results AS r JOIN experiments AS e ON e.experiment_id = r.experiment_id
WHERE {chosen} AND r.error_occurred = 0 AND r.detected IS NOT NULL
GROUP BY e.experiment_id, r.narrative_type ORDER BY e.created_at DESC, r.narrative_type
""",
    ),
)
