"""Promises about settings made of the columns of a predecessor's experiment: what was asked is never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narrun_async.config import (
    ExperimentConfig,
    OperationalSettings,
    config_from_columns,
    config_from_snapshot,
    diff_snapshots,
    parse_config,
    snapshot_json,
)
from narrun_async.errors import ConfigurationError, ExitCode

ID = "11111111-2222-4333-8444-555555555555"
URL = "http://localhost:1234/v1/chat/completions"
COLUMNS: dict[str, Any] = {
    "experiment_id": ID,
    "experiment_name": "exp_037",
    "model_name": "gpt-oss-120b",
    "model_provider": "LM Studio",
    "temperature": 0.2,
    "system_prompt": "You judge accounts.\nAnswer in JSON.",
    "user_template": "Read: <<TEXT>>",
    "prompt_version": "v2.1",
    "prompt_author": "R",
    "run_seed": 123,
    "data_file": "C:/ipv/cases.xlsx",
    "api_url": URL,
    "notes": "third try",
}


def config_of(
    given: ExperimentConfig | None = None, *, override: str | None = None, **changes: Any
) -> ExperimentConfig:
    return config_from_columns(
        COLUMNS | changes,
        data_file="found/in/the/database.xlsx",
        max_narratives=None,
        api_url=override,
        given=given,
        operational=OperationalSettings(),
    )


def named_configuration(**sections: dict[str, Any]) -> ExperimentConfig:
    raw: dict[str, Any] = {
        "experiment": {"name": "another"},
        "model": {"name": "another-model", "provider": "openai", "api_url": "http://10.0.0.1/v1", "temperature": 1.9},
        "prompt": {"version": "9", "system_prompt": "Another.", "user_template": "Another: <<TEXT>>"},
        "data": {"file": "another.xlsx"},
        "run": {"seed": 9, "max_narratives": 3, "concurrency": 7},
    }
    for name, keys in sections.items():
        raw[name] = raw.get(name, {}) | keys
    return parse_config(raw, read_text=str, origin="another.yaml", environment={})


def test_every_setting_is_what_the_columns_say() -> None:
    frozen = config_of().model_dump(exclude_defaults=True, exclude={"operational", "ignored_keys"})
    assert frozen == {
        "experiment": {"name": "exp_037", "author": "R", "notes": "third try"},
        "model": {"name": "gpt-oss-120b", "provider": "LM Studio", "api_url": URL, "temperature": 0.2},
        "prompt": {
            "version": "v2.1",
            "system_prompt": "You judge accounts.\nAnswer in JSON.",
            "user_template": "Read: <<TEXT>>",
        },
        "data": {"file": "C:/ipv/cases.xlsx"},
        "run": {"seed": 123},
    }


def test_the_snapshot_can_be_read_back() -> None:
    config = config_of()
    assert config_from_snapshot(snapshot_json(config)) == config


def test_a_configuration_gives_what_was_not_stored_and_nothing_that_is_asked() -> None:
    given = named_configuration(
        model={"api_key_env": "KEY_OF_TESTS", "max_tokens": 5, "seed": 4},
        privacy={"allow_remote": True, "approval_note": "allowed by nobody"},
        data={"sheet": "Cases", "on_conflict": "first", "skip_blank_ids": True},
    )
    with_it, without = json.loads(snapshot_json(config_of(given))), json.loads(snapshot_json(config_of()))
    assert with_it["privacy"] == {"allow_remote": True, "approval_note": "allowed by nobody"}
    assert with_it["data"] == without["data"] | {"sheet": "Cases", "on_conflict": "first", "skip_blank_ids": True}
    assert with_it["model"] == without["model"] | {"api_key_env": "KEY_OF_TESTS"}
    for section in ("experiment", "prompt", "run", "simulation"):
        assert with_it[section] == without[section]


@pytest.mark.parametrize("provider", ["", None, "My own server", "simulated", "LM-Studio 0.3"])
def test_an_unknown_provider_speaks_the_protocol_all_the_same(provider: str | None) -> None:
    config = config_of(model_provider=provider)
    assert (config.model.provider, config.model.api_url) == ("openai-compatible", URL)


def test_what_only_names_things_has_a_name_in_any_case() -> None:
    config = config_of(
        experiment_name=None, prompt_version=" ", prompt_author="two\nlines", run_seed=-7, data_file=None, notes=" "
    )
    assert config.experiment.name == ID
    assert config.experiment.notes is None
    assert (config.prompt.version, config.experiment.author) == ("unknown", "two lines")
    assert config.run.seed is None
    assert config.data.file == "found/in/the/database.xlsx"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("temperature", None),
        ("temperature", "warm"),
        ("model_name", None),
        ("model_name", "  "),
        ("user_template", None),
        ("user_template", "Read this account"),
        ("api_url", None),
        ("api_url", "localhost:1234"),
    ],
)
def test_a_column_that_is_needed_is_named_and_its_value_is_not(column: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{ID}.*`{column}`") as refused:
        config_of(**{column: value})
    assert refused.value.exit_code is ExitCode.CONFIGURATION
    assert "Read this account" not in str(refused.value)


def test_a_temperature_that_no_endpoint_takes_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.temperature.*at most 2"):
        config_of(temperature=7)


def test_every_column_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        config_of(temperature=None, user_template="", api_url="")
    for column in ("temperature", "user_template", "api_url"):
        assert f"`{column}`" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret-word@localhost:1234/v1/chat/completions",
        "http://localhost:1234/v1/chat/completions?api_key=secret-word",
        "http://localhost:1234/${SECRET_KEY}/v1",
    ],
)
def test_a_key_in_the_address_is_refused_without_showing_it_and_says_what_to_do(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--api-url") as refused:
        config_of(api_url=url)
    assert "secret-word" not in str(refused.value)
    assert "OPENAI_API_KEY" in str(refused.value)


@pytest.mark.parametrize("url", [None, "http://me:secret-word@localhost:1234/v1"])
def test_the_address_that_a_person_gives_takes_the_place_of_one_that_cannot_be_stored(url: str | None) -> None:
    assert config_of(override="http://localhost:9/v1", api_url=url).model.api_url == "http://localhost:9/v1"


def test_an_address_that_can_be_stored_stays_whatever_a_person_gives_for_this_run() -> None:
    assert config_of(override="http://localhost:9/v1").model.api_url == URL


def test_a_variable_in_the_address_stays_a_variable() -> None:
    url = "http://${LM_HOST}:1234/v1/chat/completions"
    assert config_of(api_url=url).model.api_url == url


def test_the_file_that_r_read_differs_in_nothing_but_that_r_asked_nobody_twice() -> None:
    given = parse_config(
        {
            "experiment": {"name": "exp_037", "author": "R", "notes": "third try"},
            "model": {"name": "gpt-oss-120b", "provider": "LM Studio", "api_url": URL, "temperature": 0.2},
            "prompt": {
                "version": "v2.1",
                "system_prompt": COLUMNS["system_prompt"],
                "user_template": COLUMNS["user_template"],
            },
            "data": {"file": "C:/ipv/cases.xlsx"},
            "run": {"seed": 123, "save_incremental": True, "save_csv_json": False},
        },
        read_text=str,
        origin="exp_037.yaml",
        environment={},
    )
    differences = diff_snapshots(snapshot_json(config_of(given)), snapshot_json(given))
    assert [(one.key, one.stored, one.current) for one in differences] == [("model.second_try", "false", "true")]
