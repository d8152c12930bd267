"""Promises of `operations.comparing`: which settings set experiments apart, whoever created them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from narrun_async.config import parse_config, snapshot_json
from narrun_async.models import AnswerFormat, Cohort, Experiment, ExperimentId, ExperimentStatus, NarrativeId
from narrun_async.operations.comparing import are_repetitions, comparable_settings, varying_settings

RAW: dict[str, Any] = {
    "experiment": {"name": "exp"},
    "model": {"name": "m", "provider": "lmstudio", "api_url": "http://localhost:1/v1", "temperature": 0.2},
    "prompt": {"version": "v1", "system_prompt": "CANARY one\ntwo", "user_template": "CANARY <<TEXT>>"},
    "data": {"file": "cases.xlsx"},
    "run": {"seed": 1},
}
#: as the predecessor stored it
COLUMNS: dict[str, Any] = {
    "model_name": "m",
    "model_provider": "lmstudio",
    "api_url": "http://localhost:1/v1",
    "temperature": 0.2,
    "prompt_version": "v1",
    "run_seed": 1,
    "system_prompt": "CANARY one\ntwo",
    "user_template": "CANARY <<TEXT>>",
}


def experiment(snapshot: str | None, columns: dict[str, Any] | None = None) -> Experiment:
    return Experiment(
        experiment_id=ExperimentId("e"),
        name="exp",
        status=ExperimentStatus.COMPLETED,
        cohort=Cohort(data_checksum="c", last_narrative_id=NarrativeId(1), n_narratives=1),
        config_json=snapshot,
        config_sha256=None,
        log_dir=None,
        created_at="",
        columns=columns or {},
    )


def with_settings(**changes: Any) -> Experiment:
    """`section__key=value` sets a key."""
    raw = deepcopy(RAW)
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        raw.setdefault(section, {})[key] = value
    return experiment(snapshot_json(parse_config(raw, read_text=lambda name: name, origin="x.yaml", environment={})))


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment__name": "another"},
        {"experiment__notes": "again"},
        {"run__seed": 2},
        {"model__seed": 7},
        {"run__max_narratives": 10},
        {"data__file": "moved/cases.xlsx"},
        {"prompt__version": "v1-again"},
        {"model__api_key_env": "OTHER_KEY"},
        {"model__api_key_header": "api-key"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_names_seeds_and_places_make_a_repetition_no_other_question(changes: dict[str, Any]) -> None:
    assert are_repetitions(comparable_settings(with_settings()), comparable_settings(with_settings(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"model__name": "other"},
        {"model__temperature": 0.3},
        {"model__top_p": 0.9},
        {"model__max_tokens": 100},
        {"prompt__system_prompt": "CANARY three"},
        {"prompt__user_template": "Other: <<TEXT>>"},
        {"model__response_format": {"type": "json_object"}},
        {"model__reasoning_effort": "high"},
        {"model__body": {"top_k": 5}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_can_change_an_answer_is_another_question_and_is_named(changes: dict[str, Any]) -> None:
    one, other = comparable_settings(with_settings()), comparable_settings(with_settings(**changes))
    assert not are_repetitions(one, other)
    (varying,) = varying_settings([one, other])
    assert varying.startswith(next(iter(changes)).replace("__", "."))


def test_experiments_whose_probes_came_to_different_ends_are_different_questions() -> None:
    auto = with_settings(model__response_format="auto")
    schema, nothing = (
        comparable_settings(replace(auto, answer_format=found))
        for found in (AnswerFormat.JSON_SCHEMA, AnswerFormat.OFF)
    )
    assert varying_settings([schema, nothing]) == ["model.response_format"]
    assert not are_repetitions(schema, nothing)


def test_prompts_are_known_by_their_hash_and_never_shown() -> None:
    assert "CANARY" not in str(comparable_settings(with_settings()))
    assert "CANARY" not in str(comparable_settings(experiment(None, COLUMNS)))


def test_an_experiment_of_the_predecessor_repeats_one_of_ours_with_the_same_settings() -> None:
    theirs = comparable_settings(experiment(None, COLUMNS))
    ours = comparable_settings(with_settings(model__second_try=False))
    assert are_repetitions(theirs, ours)
    assert varying_settings([theirs, ours]) == []
    # which it does not do by default: the predecessor asked nobody twice
    assert varying_settings([theirs, comparable_settings(with_settings())]) == ["model.second_try"]
    hotter = comparable_settings(experiment(None, COLUMNS | {"temperature": 0.7}))
    assert varying_settings([hotter, ours]) == ["model.temperature"]


def test_a_snapshot_that_nobody_understands_is_told_by_its_columns() -> None:
    assert comparable_settings(experiment("{}", COLUMNS)) == comparable_settings(experiment(None, COLUMNS))
