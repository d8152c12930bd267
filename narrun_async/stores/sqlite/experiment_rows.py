"""A new experiment as the columns of its row; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from narrun_async.models import ExperimentStatus, NewExperiment, text_sha256

#: columns of `experiments` that hold a prompt; `<column>_sha256` names it in `prompts`
PROMPT_COLUMNS = ("system_prompt", "user_template")


def experiment_columns(new: NewExperiment) -> Mapping[str, object]:
    """What `create_experiment` stores: status `running`, empty counters, prompts also by their hash."""
    columns: dict[str, object] = {name: value for name, value in asdict(new).items() if name != "sweep"}
    hashes = {f"{role}_sha256": _hash_of(columns[role]) for role in PROMPT_COLUMNS}
    place = new.sweep
    in_sweep = {
        "sweep_id": place.sweep_id if place else None,
        "sweep_position": place.position if place else None,
        "sweep_settings": json.dumps(dict(place.settings), ensure_ascii=False) if place else None,
    }
    return columns | hashes | in_sweep | {
        "status": ExperimentStatus.RUNNING.value,
        "n_narratives_processed": 0,
        "n_narratives_skipped": 0,
        "n_narratives_completed": 0,
        "n_errors": 0,
    }  # fmt: skip


def _hash_of(prompt: object) -> str | None:
    return text_sha256(prompt) if isinstance(prompt, str) else None
