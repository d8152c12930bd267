"""The configurations that come with the program can be read and say what their comments promise."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from narrun_async.config import (
    ExperimentConfig,
    OperationalSettings,
    ProviderKind,
    SimulationSection,
    notices,
    parse_config,
)
from narrun_async.config.complaints import known_keys
from narrun_async.config.documents import LEGACY_KEYS, Document, RunDocument
from narrun_async.config.sections import FrozenSections
from narrun_async.prompting import RequestFields, RequestTemplate
from narrun_async.simulation.behaviour import Behaviour, Fault
from narrun_async.simulation.keywords import PARTNER_VIOLENCE_PHRASES
from narrun_async.sources.yaml_file import load_yaml, text_reader

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "configs" / "exp_101_smoke.yaml"
PRODUCTION = ROOT / "configs" / "exp_100_production_20k.yaml"


def load(path: Path) -> ExperimentConfig:
    return parse_config(load_yaml(path), read_text=text_reader(path.parent), origin=path.name, environment={})


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_configuration_is_accepted_without_notices(path: Path) -> None:
    config = load(path)
    assert config.experiment.name == path.stem
    assert notices(config) == ()


def test_smoke_needs_no_endpoint() -> None:
    config = load(SMOKE)
    assert config.model.provider_kind is ProviderKind.SIMULATED
    assert (config.data.file, config.run.max_narratives) == ("data/synthetic_narratives.xlsx", 200)


def test_production_calls_lm_studio_on_this_machine() -> None:
    config = load(PRODUCTION)
    assert config.model.api_url == "http://localhost:1234/v1/chat/completions"
    assert (config.model.name, config.model.temperature) == ("openai/gpt-oss-120b", 0.2)
    assert (config.run.max_narratives, config.operational.save_csv_json) == (None, True)
    assert not config.privacy.allow_remote


def test_the_user_prompt_does_not_trigger_the_simulated_keyword_rule() -> None:
    prompt = load(SMOKE).prompt
    body = RequestTemplate.build(RequestFields(model="m", user_template=prompt.user_template)).body_for("")
    assert [phrase for phrase in PARTNER_VIOLENCE_PHRASES if phrase.encode() in body.lower()] == []


def test_simulation_settings_are_knobs_of_the_simulated_endpoint() -> None:
    knobs = {knob.name: knob.default for knob in fields(Behaviour)}
    assert SimulationSection.model_fields.keys() <= knobs.keys()
    rates = dict.fromkeys(Fault, 0.1)
    section = SimulationSection.model_validate({"fault_rates": {str(fault): rate for fault, rate in rates.items()}})
    assert Behaviour(**section.model_dump()).fault_rates == rates


def test_the_documentation_has_a_row_for_every_key_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)`", (ROOT / "docs" / "configuration.md").read_text(), re.M))
    existing = {
        f"{section}.{key}"
        for section, field in FrozenSections.model_fields.items()
        for key in (
            RunDocument if section == "run" else SimulationSection if section == "simulation" else field.annotation
        ).model_fields  # type: ignore[union-attr]
    }
    assert documented == existing | {"prompt.system_prompt_file", "prompt.user_template_file"}


#: of the five sections of the predecessor
R_KEYS = {
    "experiment": ("name", "author", "notes"),
    "model": ("name", "provider", "api_url", "temperature"),
    "prompt": ("version", "system_prompt", "user_template", "system_prompt_file", "user_template_file"),
    "data": ("file",),
    "run": ("seed", "max_narratives", "save_incremental", "save_csv_json", *LEGACY_KEYS, "database"),
}


def test_every_key_of_the_predecessor_is_known_and_has_its_place_in_the_documentation() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "from-r.md").read_text(), re.M)
    documented = {key for row in rows for key in re.findall(r"`([a-z_]+\.[a-z_]+)`", row)}
    existing = {f"{section}.{key}" for section, keys in R_KEYS.items() for key in keys}
    assert existing <= documented
    known = known_keys(Document)
    assert all(key in known[section] for section, keys in R_KEYS.items() for key in keys)


def test_the_documentation_states_the_defaults() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for model, section in ((OperationalSettings, "run"), (SimulationSection, "simulation")):
        for key, field in model.model_fields.items():
            if isinstance(field.default, bool | int | float | str):
                row = re.search(rf"^\| `{section}\.{key}` \|.*$", text, re.M)
                value = str(field.default).lower().removesuffix(".0")
                assert row is not None
                assert f"| {value} |" in row.group().replace("`", ""), key
