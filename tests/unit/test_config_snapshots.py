"""The snapshot: canonical, complete, the same both ways, and compared key by key."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.config import (
    ExperimentConfig,
    OperationalSettings,
    config_from_snapshot,
    diff_snapshots,
    parse_config,
    snapshot_json,
    snapshot_sha256,
)
from narrun_async.errors import ConfigurationError

RAW: dict[str, Any] = {
    "experiment": {"name": "exp"},
    "model": {"name": "m", "provider": "lmstudio", "api_url": "http://${HOST}/v1", "temperature": 0.2},
    "prompt": {"version": "v1", "system_prompt": "one\ntwo", "user_template": "ä <<TEXT>>"},
    "data": {"file": "cases.xlsx"},
    "run": {"seed": 1},
}


def config_with(**changes: Any) -> ExperimentConfig:
    """`section__key=value` sets a key."""
    raw = deepcopy(RAW)
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        raw.setdefault(section, {})[key] = value
    return parse_config(raw, read_text=lambda name: name, origin="exp.yaml", environment={"HOST": "expanded"})


def test_snapshot_is_canonical_and_holds_every_frozen_section_and_nothing_else() -> None:
    snapshot = snapshot_json(config_with())
    content = json.loads(snapshot)
    assert content.keys() == {"experiment", "model", "prompt", "data", "run", "privacy", "simulation"}
    unset = {"max_narratives": None, "skip_placeholders": False, "ask_identical_once": False}
    assert content["run"] == {"seed": 1} | unset
    assert snapshot == json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert "ä" in snapshot
    assert "${HOST}" in snapshot
    assert "expanded" not in snapshot
    assert snapshot_sha256(config_with()) == hashlib.sha256(snapshot.encode()).hexdigest()


def test_a_mapping_that_is_sent_keeps_its_order_and_comes_back_in_it() -> None:
    properties = {"rationale": {"type": "string"}, "detected": {"type": "boolean"}}
    config = config_with(model__response_format={"type": "json_schema", "schema": {"properties": properties}})
    again = config_from_snapshot(snapshot_json(config)).model.response_format
    assert json.dumps(again) == json.dumps(config.model.response_format)


def test_operational_settings_and_the_order_of_keys_change_no_hash() -> None:
    raw = {name: dict(reversed(section.items())) for name, section in reversed(RAW.items())}
    raw["run"] |= {
        "concurrency": 99, "max_attempts": 9, "save_csv_json": True, "database": "x.db", "log_level": "debug",
        "resume": True, "experiment_id": "latest", "batch_size": 7,
    }  # fmt: skip
    config = parse_config(raw, read_text=lambda name: name, origin="exp.yaml", environment={})
    assert config.operational != OperationalSettings()
    assert snapshot_sha256(config) == snapshot_sha256(config_with())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experiment__name", "other"), ("experiment__notes", "n"), ("model__name", "n"), ("model__provider", "vllm"),
        ("model__api_url", "http://h"), ("model__temperature", 0.3), ("model__max_tokens", 5), ("model__seed", 5),
        ("model__top_p", 0.5), ("model__second_try", False), ("model__response_format", {"type": "json_object"}),
        ("model__api_key_env", "K"),
        ("model__response_format", "auto"), ("model__max_completion_tokens", 5), ("model__reasoning_effort", "low"),
        ("model__headers", {"X-A": "${A}"}), ("model__query", {"a": "b"}), ("model__body", {"top_k": [1, {"b": 2}]}),
        ("model__api_key_header", "api-key"),
        ("prompt__version", "v2"), ("prompt__system_prompt", "one\n"), ("prompt__user_template", "<<TEXT>>"),
        ("data__file", "b.xlsx"), ("data__sheet", "s"), ("data__on_conflict", "first"), ("run__seed", 2),
        ("run__max_narratives", 2), ("privacy__approval_note", "ok"),
    ],
)  # fmt: skip
def test_every_frozen_setting_changes_the_hash_and_is_the_one_difference(key: str, value: object) -> None:
    before, after = config_with(), config_with(**{key: value})
    assert snapshot_sha256(before) != snapshot_sha256(after)
    differences = diff_snapshots(snapshot_json(before), snapshot_json(after))
    (difference,) = differences
    # of a mapping that appears, the keys in it are what differs
    assert ".".join(difference.key.split(".")[:2]) == key.replace("__", ".")


def test_an_integral_temperature_means_the_same_with_and_without_a_point() -> None:
    assert snapshot_json(config_with(model__temperature=0)) == snapshot_json(config_with(model__temperature=0.0))


safe_text = st.text(min_size=1).filter(str.strip)


@given(
    system=st.none() | safe_text,
    template=st.text().map(lambda text: text + "<<TEXT>>"),
    temperature=st.floats(0, 2),
    seed=st.none() | st.integers(0, 2**63 - 1),
    response_format=st.none()
    | st.sampled_from(["auto", "json_schema", "json_object"])
    | st.dictionaries(st.text(), st.recursive(st.booleans() | st.text() | st.integers(), st.lists), max_size=3),
)
def test_a_snapshot_comes_back_exactly(
    system: str | None, template: str, temperature: float, seed: int | None, response_format: object
) -> None:
    config = config_with(
        prompt__system_prompt=system,
        prompt__user_template=template,
        model__temperature=temperature,
        model__response_format=response_format,
        run__seed=seed,
    )
    again = config_from_snapshot(snapshot_json(config))
    assert again == config
    assert snapshot_json(again) == snapshot_json(config)
    assert diff_snapshots(snapshot_json(config), snapshot_json(again)) == []


def test_todays_operational_settings_go_with_a_stored_snapshot() -> None:
    today = OperationalSettings(concurrency=3)
    stored = snapshot_json(config_with(run__concurrency=99))
    assert config_from_snapshot(stored, operational=today).operational == today


@pytest.mark.parametrize("snapshot", ["", "[]", "{}", "null", '{"canary', "[" * 100_000])
def test_what_is_no_snapshot_is_refused_and_not_repeated(snapshot: str) -> None:
    with pytest.raises(ConfigurationError, match="the stored configuration") as caught:
        config_from_snapshot(snapshot)
    assert "canary" not in str(caught.value)


def test_a_broken_stored_prompt_is_not_repeated() -> None:
    snapshot = snapshot_json(config_with()).replace("ä <<TEXT>>", "canary")
    with pytest.raises(ConfigurationError, match=r"`prompt\.user_template` must contain") as caught:
        config_from_snapshot(snapshot)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_short_values_are_shown() -> None:
    before = config_with(run__max_narratives=5)
    after = config_with(model__temperature=0.7, model__name="ö")
    assert [str(difference) for difference in diff_snapshots(snapshot_json(before), snapshot_json(after))] == [
        'model.name: "m" → "ö"',
        "model.temperature: 0.2 → 0.7",
        "run.max_narratives: 5 → not set",
    ]


def test_prompts_are_shown_by_length_hash_and_first_differing_line() -> None:
    text = "canary\n" * 200
    before = config_with(prompt__system_prompt=text)
    after = config_with(prompt__system_prompt=text.replace("canary", "CANARY", 50)[:-7] + "x")
    changed = text[: 7 * 119] + "changed\n" + text[7 * 120 :]
    third = config_with(prompt__system_prompt=changed)
    (difference,) = diff_snapshots(snapshot_json(before), snapshot_json(after))
    assert difference.first_differing_line == 1
    (difference,) = diff_snapshots(snapshot_json(before), snapshot_json(third))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert difference.key == "prompt.system_prompt"
    assert difference.stored == f"1,400 characters, sha256 {digest[:12]}…"
    assert difference.first_differing_line == 120
    assert "canary" not in str(difference)
    assert str(difference).endswith("(first difference in line 120)")


def test_a_long_note_is_not_shown_either() -> None:
    (difference,) = diff_snapshots(
        snapshot_json(config_with()), snapshot_json(config_with(experiment__notes="two\nlines"))
    )
    assert (difference.stored, difference.first_differing_line) == ("not set", None)
    assert difference.current.startswith("9 characters, sha256 ")


def test_true_and_one_are_different() -> None:
    one = config_with(model__response_format={"a": [1]})
    true = config_with(model__response_format={"a": [True]})
    (difference,) = diff_snapshots(snapshot_json(one), snapshot_json(true))
    assert (difference.stored, difference.current) == ("[1]", "[true]")


def test_a_key_that_an_older_snapshot_lacks_is_no_difference_at_its_default() -> None:
    current = snapshot_json(config_with())
    older = json.loads(current)
    del older["privacy"]
    del older["model"]["top_p"]
    assert diff_snapshots(json.dumps(older), current) == []


def test_an_experiment_of_before_there_was_a_second_try_goes_on_without_one() -> None:
    current = snapshot_json(config_with())
    assert json.loads(current)["model"]["second_try"] is True
    older = json.loads(current)
    del older["model"]["second_try"]
    assert config_from_snapshot(json.dumps(older)).model.second_try is False
    assert [str(difference) for difference in diff_snapshots(json.dumps(older), current)] == [
        "model.second_try: false → true"
    ]
    assert diff_snapshots(json.dumps(older), snapshot_json(config_with(model__second_try=False))) == []
