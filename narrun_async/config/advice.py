"""Owns what is said about keys that people bring from elsewhere: the predecessor, SDKs, servers, other programs.

None of these keys does anything here. The name decides, whatever section it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: names for what has a key of its own here
_MEANT: Mapping[str, tuple[str, ...]] = {
    "experiment.name": ("title", "experiment_name"),
    "experiment.notes": ("description", "comment", "comments"),
    "model.name": ("model_name", "model_id", "deployment", "deployment_name", "deployment_id"),
    "model.provider": ("model_provider", "backend", "api_type"),
    "model.api_url": (
        "url",
        "base_url",
        "api_base",
        "api_endpoint",
        "endpoint",
        "azure_endpoint",
        "server_url",
        "host",
    ),
    "model.max_tokens": ("max_output_tokens", "max_new_tokens", "num_predict", "n_predict"),
    "model.reasoning_effort": ("reasoning", "effort", "reasoning_level"),
    "model.response_format": ("json_mode", "json_schema", "structured_output", "structured_outputs"),
    "model.headers": ("extra_headers", "default_headers"),
    "model.query": ("extra_query", "default_query", "api_version"),
    "model.body": ("extra_body", "parameters", "model_kwargs", "options", "top_k", "min_p", "stop"),
    "prompt.version": ("prompt_version",),
    "prompt.author": ("prompt_author",),
    "prompt.system_prompt": ("system", "system_message", "system_text"),
    "prompt.user_template": ("user", "user_prompt", "user_message", "template", "prompt_template"),
    "prompt.user_template_file": ("prompt_file", "template_file", "user_prompt_file"),
    "data.file": ("path", "input", "input_file", "data_file", "data_path", "excel_file", "workbook"),
    "data.sheet": ("sheet_name",),
    "run.max_narratives": ("limit", "n", "n_max", "max_n", "max_rows", "n_rows", "sample_size", "n_narratives"),
    "run.seed": ("random_seed", "run_seed"),
    "run.concurrency": ("workers", "n_workers", "max_workers", "threads", "parallel", "n_parallel", "parallelism"),
    "run.attempt_deadline_s": ("timeout", "timeout_s", "timeout_sec", "timeout_seconds", "request_timeout"),
    "run.max_attempts": ("retries", "max_retries", "n_retries", "retry"),
    "run.database": ("db", "db_path", "db_file", "database_path", "experiments_db"),
    "run.experiment_id": ("resume_id", "resume_experiment", "resume_experiment_id"),
    "run.retry_errors_only": ("retry_errors", "retry_failed"),
    "run.log_level": ("verbose", "debug", "verbosity"),
    "run.save_csv_json": ("save_csv", "save_json", "save_results", "export"),
}

_A_KEY = (
    "a key is never written into a configuration; name its variable in `model.api_key_env` or its file in "
    "`model.api_key_file`"
)
_LOGS = "`--log-dir` says where the logs of a run go"
_EXPORTS = "`--export-dir` says where exports go"
_DROPPED = "vLLM dropped it and ignores it silently; use `model.response_format`"

#: names for what no key does here, and what does it
EXPLAINED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("api_key", "apikey", "key", "token", "openai_api_key", "api_token", "secret"), _A_KEY)
    | dict.fromkeys(("log_dir", "log_directory", "logs"), _LOGS)
    | dict.fromkeys(("output_dir", "output_directory", "results_dir", "output", "csv_file", "json_file"), _EXPORTS)
    | dict.fromkeys(("guided_json", "guided_choice", "guided_regex", "guided_grammar"), _DROPPED)
    | {"stream": "answers are read whole", "r_version": "no R is needed any more"}
)

#: name → the key that is meant
MEANT: Mapping[str, str] = MappingProxyType({name: key for key, names in _MEANT.items() for name in names})
