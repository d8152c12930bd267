"""Owns what a reader may meet when browsing: table → column → its meaning, in the order shown."""

from __future__ import annotations

from collections.abc import Mapping

from narrun_async.codebook.results import RESULT_COLUMNS

#: made when the tables are copied: what four columns of the table say, in one that can be counted and chosen
AGREEMENT = "agreement"
_AGREEMENT_MEANING = "The answer against the manual label of this narrative; empty where one of them is missing."


def _results() -> Mapping[str, str]:
    """As in the table, but the long id, which is the same in all rows of an experiment, comes last."""
    described: dict[str, str] = {}
    for column in RESULT_COLUMNS:
        if column.name == "detected":
            described[AGREEMENT] = _AGREEMENT_MEANING
        described[column.name] = column.meaning
    described["experiment_id"] = described.pop("experiment_id")
    return described


_EXPERIMENTS: Mapping[str, str] = {
    "experiment_id": "identifies the experiment",
    "experiment_name": "the name in its configuration",
    "status": "running, interrupted (can be resumed), failed (something has to be changed first), or completed",
    "model_name": "the model that was asked for",
    "model_provider": "simulated, or openai-compatible; the answers of a simulated one mean nothing",
    "temperature": "sent with every request",
    "answer_format": "where `response_format` is auto: what the endpoint was found to bind its answers to",
    "prompt_version": "version of the prompt",
    "prompt_author": "who wrote the prompt",
    "system_prompt": "the system message",
    "user_template": "the user message, where <<TEXT>> stands for the narrative",
    "run_seed": "recorded, not sent",
    "data_file": "the workbook or table that the narratives come from",
    "n_narratives_total": "narratives in the cohort",
    "n_narratives_processed": "narratives with a row, errors included",
    "n_narratives_skipped": "narratives that were not sent",
    "n_errors": "rows without a usable answer",
    "n_positive_detected": "narratives in which the model found intimate partner violence",
    "n_negative_detected": "narratives in which it found none",
    "n_positive_manual": "labelled positive, of the labelled rows with an answer",
    "n_negative_manual": "labelled negative, of the labelled rows with an answer",
    "n_true_positive": "detected, and labelled so",
    "n_true_negative": "not detected, and labelled so",
    "n_false_positive": "detected, but labelled negative",
    "n_false_negative": "not detected, but labelled positive",
    "accuracy": "share of the labelled rows with an answer that agree with the label",
    "precision_ipv": "share of the detected that are labelled positive",
    "recall_ipv": "share of the labelled positive that were detected",
    "f1_ipv": "harmonic mean of precision and recall",
    "created_at": "local time",
    "start_time": "of the first run, local time",
    "end_time": "of the last run, local time",
    "last_progress_update": "when a row was last stored, local time",
    "estimated_completion_time": "local time",
    "total_runtime_sec": "seconds of work, all runs together",
    "avg_time_per_narrative_sec": "seconds of work a row",
    "api_url": "the endpoint",
    "hostname": "the machine that created the experiment",
    "narrun_version": "of the program that ran it last",
    "notes": "what the author noted",
    "config_json": "the whole configuration as it was frozen, prompts included",
}

_RUNS: Mapping[str, str] = {
    "run_id": "identifies the run: the life of one process",
    "experiment_id": "the experiment that it worked on",
    "mode": "new, resume, or retry-errors",
    "selection": "what it set out to work on: missing rows, errors, or both",
    "concurrency": "calls in flight, or auto",
    "started_at": "UTC",
    "last_saved_at": "when it last stored a row, UTC",
    "ended_at": "UTC; empty: it is running, or was killed",
    "runtime_s": "seconds, by a clock that is never set back",
    "n_saved": "rows that it stored",
    "exit_code": "what the process ended with",
    "ended_why": "in one sentence",
    "api_url": "the endpoint",
    "api_url_overridden": "1: another endpoint than the experiment's, by --api-url",
    "host": "the machine",
    "pid": "the process",
    "narrun_version": "of the program",
}

_ATTEMPTS: Mapping[str, str] = {
    "attempt_id": "identifies the call, in the order in which calls were recorded",
    "experiment_id": "the experiment",
    "run_id": "the run that made the call",
    "incident_id": "the case",
    "narrative_type": "cme: coroner or medical examiner; le: law enforcement",
    "started_at": "UTC",
    "duration_s": "seconds",
    "error_category": "what was wrong; empty: the call brought the answer",
    "error_message": "in one sentence",
    "http_status": "of the reply, where there was one",
    "charged": "0: the endpoint's failure, not counted against the narrative",
    "prompt_tokens": "as the endpoint counts them",
    "completion_tokens": "as the endpoint counts them",
}

_SERVINGS: Mapping[str, str] = {
    "serving_id": "in the order in which they were met",
    "experiment_id": "the experiment",
    "model": "the model that the answers name",
    "system_fingerprint": "what the endpoint calls its set-up",
    "server": "what the server calls itself",
    "run_id": "the run that met it first",
    "first_seen_at": "UTC",
}

_CANARY_ANSWERS: Mapping[str, str] = {
    "canary_id": "identifies the answer",
    "experiment_id": "the experiment",
    "run_id": "the run that asked again",
    "incident_id": "the case",
    "narrative_type": "cme: coroner or medical examiner; le: law enforcement",
    "asked_at": "UTC",
    "duration_s": "seconds",
    "detected": "the answer when asked again; the result stands as it was",
    "confidence": "likewise",
    "error_category": "what was wrong; empty: a usable answer",
    "error_message": "in one sentence",
    "response_model": "the model that the answer names",
    "system_fingerprint": "what the endpoint calls its set-up",
    "prompt_tokens": "as the endpoint counts them",
    "completion_tokens": "as the endpoint counts them",
}

BROWSED_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "narrative_results": _results(),
    "experiments": _EXPERIMENTS,
    "runs": _RUNS,
    "attempts": _ATTEMPTS,
    "servings": _SERVINGS,
    "canary_answers": _CANARY_ANSWERS,
}
