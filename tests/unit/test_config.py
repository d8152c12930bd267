"""Settings from YAML: what is taken, what is refused, and how that is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from narrun_async.config import (
    ExperimentConfig,
    OperationalSettings,
    ProviderKind,
    SimulationSection,
    apply_environment,
    notices,
    parse_config,
)
from narrun_async.config.advice import EXPLAINED, MEANT
from narrun_async.config.complaints import known_keys
from narrun_async.config.documents import Document
from narrun_async.errors import ConfigurationError

COMPLETE: dict[str, Any] = {
    "experiment": {"name": "exp", "author": "A. Uthor", "notes": "one\ntwo"},
    "model": {
        "name": "openai/gpt-oss-120b",
        "provider": "lmstudio",
        "api_url": "http://localhost:1234/v1/chat/completions",
        "temperature": 0.2,
    },
    "prompt": {"version": "v1", "system_prompt": "system canary", "user_template": "canary: <<TEXT>>"},
    "data": {"file": "data/cases.xlsx"},
    "run": {"seed": 1024, "max_narratives": 404},
}
SIMULATED: dict[str, Any] = {**COMPLETE, "model": {"name": "m", "provider": "simulated", "temperature": 0}}


def no_files(name: str) -> str:
    raise ConfigurationError(f"{name}: there is no such file")


def parsed(
    raw: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    read_text: Callable[[str], str] = no_files,
    **keywords: Any,
) -> ExperimentConfig:
    return parse_config(raw, read_text=read_text, origin="exp.yaml", environment=environment or {}, **keywords)


def changed(dotted: str, value: object, base: Mapping[str, Any] = COMPLETE) -> dict[str, Any]:
    raw = deepcopy(dict(base))
    section, _, key = dotted.partition(".")
    if key:
        raw.setdefault(section, {})[key] = value
    else:
        raw[section] = value
    return raw


@pytest.mark.parametrize(
    ("written", "meant"), [({}, True), ({"second_try": True}, True), ({"second_try": False}, False)]
)
@pytest.mark.parametrize("base", [COMPLETE, SIMULATED], ids=["real", "simulated"])
def test_a_file_that_does_not_say_asks_once_more(base: dict[str, Any], written: dict[str, bool], meant: bool) -> None:
    raw = {**base, "model": {**base["model"], **written}}
    before = deepcopy(raw)
    assert parsed(raw).model.second_try is meant
    assert raw == before


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_second_try_is_true_or_false(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"`model\.second_try` must be true or false"):
        parsed(changed("model.second_try", value))


def refusal(raw: Mapping[str, object], **keywords: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parsed(raw, **keywords)
    message = str(caught.value)
    assert "exp.yaml" in message
    assert "canary" not in message
    # the validation error, which holds the prompts, is not shown with a traceback either
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, ConfigurationError)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


def test_every_setting_of_the_predecessor_is_taken() -> None:
    raw = deepcopy(COMPLETE)
    raw["run"] |= {
        "save_incremental": True,
        "save_csv_json": True,
        "batch_size": 100,
        "resume_enabled": True,
        "progress_tracking": None,
        "database": "data/other.db",
    }
    config = parsed(raw)
    assert config.run.max_narratives == 404
    assert config.operational == OperationalSettings(save_csv_json=True, database="data/other.db")
    assert [notice.split("`")[1] for notice in notices(config)] == [
        "run.save_incremental",
        "run.batch_size",
        "run.resume_enabled",
        "run.progress_tracking",
    ]


def test_operational_settings_come_from_run() -> None:
    raw = changed("run.concurrency", 64)
    raw["run"] |= {"max_wait_s": 5, "log_level": "debug", "resume": True, "experiment_id": "latest"}
    expected = OperationalSettings(
        concurrency=64, max_wait_s=5.0, log_level="debug", resume=True, experiment_id="latest"
    )
    assert parsed(raw).operational == expected


def test_defaults_are_those_of_the_plan() -> None:
    operational = parsed(changed("run", {})).operational
    assert (operational.concurrency, operational.attempt_deadline_s, operational.max_wait_s) == ("auto", 120, 3600)
    assert operational.max_concurrency == 64
    assert (operational.max_attempts, operational.max_passes) == (5, 3)
    assert (operational.max_consecutive_errors, operational.page_size) == (50, 500)
    assert (operational.database, operational.save_csv_json) == ("data/experiments.db", False)


@pytest.mark.fault("Y09")
@pytest.mark.parametrize("section", ["experiment", "model", "prompt", "data", "run"])
def test_each_of_the_five_sections_is_required(section: str) -> None:
    raw = {name: value for name, value in COMPLETE.items() if name != section}
    assert f"section `{section}` is missing" in refusal(raw)
    assert f"`{section}` must be a section" in refusal(changed(section, None))


@pytest.mark.fault("Y10", "Y12")
@pytest.mark.parametrize(
    ("dotted", "value", "fragment"),
    [
        ("experiment.name", 5, "`experiment.name` must be text"),
        ("experiment.name", "  ", "`experiment.name` must not be blank"),
        ("experiment.name", "a\x1b[31m", "`experiment.name` must be one line"),
        ("model.temperature", "0.2", "`model.temperature` must be a number"),
        ("model.temperature", True, "`model.temperature` must be a number"),
        ("model.temperature", None, "`model.temperature` must be a number"),
        ("model.temperature", 2.5, "`model.temperature` must be at most 2"),
        ("model.temperature", -0.1, "`model.temperature` must be at least 0"),
        ("model.temperature", float("nan"), "`model.temperature` must be a finite number"),
        ("model.temperature", float("inf"), "`model.temperature` must be"),
        ("model.max_tokens", 1.5, "`model.max_tokens` must be a whole number"),
        ("model.max_tokens", 10**30, "`model.max_tokens` must be at most"),
        ("model.seed", 2**63, "`model.seed` must be at most"),
        ("model.top_p", 0, "`model.top_p` must be more than 0"),
        ("model.response_format", {"a": float("inf")}, "`model.response_format.a"),
        ("model.response_format", "json", "`model.response_format` must be `auto`, `json_schema`"),
        ("model.response_format", True, "`model.response_format` must be `auto`, `json_schema`"),
        ("model.response_format", ["json_object"], "`model.response_format` must be `auto`, `json_schema`"),
        ("model.reasoning_effort", "High", "`model.reasoning_effort` must be one word in lower case"),
        ("model.reasoning_effort", False, "`model.reasoning_effort` must be text"),
        ("model.max_completion_tokens", 0, "`model.max_completion_tokens` must be at least 1"),
        ("model.headers", ["a"], "`model.headers` must be a mapping"),
        ("model.headers", {"X-A": 5}, "`model.headers.X-A` must be text (in quotes"),
        ("model.headers", {"X-Api-Key": "canary"}, "`model.headers`: `X-Api-Key` sounds like a credential"),
        ("model.query", {"api-version": date(2024, 10, 21)}, "`model.query.api-version` must be text (in quotes"),
        ("model.body", {"seed": 1}, "`model.body` must not hold `seed`: use `model.seed`"),
        ("model.body", {"top_k": float("nan")}, "`model.body.top_k"),
        ("model.api_key_header", "Authorization", "`model.api_key_header` must be `bearer`"),
        ("model.response_format", {"a": ["\udc80"]}, "`model.response_format` must be valid Unicode"),
        ("model.api_key_env", "MY KEY", "`model.api_key_env` must be a name"),
        ("model.provider", "simulted", "`model.provider` must be `openai-compatible`"),
        ("prompt.version", 1.0, "`prompt.version` must be text (in quotes"),
        ("prompt.user_template", "canary <TEXT>", "`prompt.user_template` must contain <<TEXT>>"),
        ("prompt.system_prompt", " ", "`prompt.system_prompt` must not be blank"),
        ("prompt.system_prompt", "canary \ud800", "`prompt.system_prompt` must be valid Unicode"),
        ("data.on_conflict", "last", "`data.on_conflict` must be `error` or `first`"),
        ("data.skip_blank_ids", "yes", "`data.skip_blank_ids` must be true or false"),
        ("data.file", None, "`data.file` must be text"),
        ("run.max_narratives", 0, "`run.max_narratives` must be at least 1"),
        ("run.max_narratives", False, "`run.max_narratives` must be a whole number"),
        ("run.concurrency", 5000, "`run.concurrency` must be a whole number from 1 to 4,096, or `auto`"),
        ("run.concurrency", 0, "`run.concurrency` must be a whole number from 1 to 4,096, or `auto`"),
        ("run.concurrency", "fast", "`run.concurrency` must be a whole number from 1 to 4,096, or `auto`"),
        ("run.attempt_deadline_s", 0, "`run.attempt_deadline_s` must be more than 0"),
        ("run.experiment_id", "../../etc", "`run.experiment_id` must be an experiment id"),
        ("run.log_level", "loud", "`run.log_level` must be `debug`"),
        ("privacy.allow_remote", 1, "`privacy.allow_remote` must be true or false"),
        ("privacy.allow_remote", True, "`privacy`: `approval_note` is missing"),
        ("simulation.seed", 1, "`simulation` belongs to `provider: simulated` only"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(dotted: str, value: object, fragment: str) -> None:
    assert fragment in refusal(changed(dotted, value))


@pytest.mark.fault("Y09")
@pytest.mark.parametrize(
    ("dotted", "suggested"),
    [
        ("modle", "`model`"),
        ("model.temprature", "`model.temperature`"),
        ("prompt.user_template_fil", "`prompt.user_template_file`"),
        ("run.concurency", "`run.concurrency`"),
        ("run.temperature", "`model.temperature`"),
        ("max_narratives", "`run.max_narratives`"),
        ("data.api_url", "`model.api_url`"),
    ],
)
def test_an_unknown_key_is_refused_and_the_meant_one_named(dotted: str, suggested: str) -> None:
    assert f"unknown key `{dotted}` (did you mean {suggested}?)" in refusal(changed(dotted, "x"))


@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ("run.max_tokens", "did you mean `model.max_tokens`?"),
        ("run.workers", "did you mean `run.concurrency`?"),
        ("run.timeout", "did you mean `run.attempt_deadline_s`?"),
        ("run.seed_", "did you mean `run.seed`?"),
        ("experiment.seed", "did you mean `model.seed` or `run.seed` or `simulation.seed`?"),
        ("experiment.version", "did you mean `prompt.version`?"),
        ("model.base_url", "did you mean `model.api_url`?"),
        ("model.Temperature", "did you mean `model.temperature`?"),
        ("model.extra_body", "did you mean `model.body`?"),
        ("model.api_version", "did you mean `model.query`?"),
        ("model.top_k", "did you mean `model.body`?"),
        ("prompt.template", "did you mean `prompt.user_template`?"),
        ("data.excel_file", "did you mean `data.file`?"),
        ("temperature", "did you mean `model.temperature`?"),
        ("batch_size", "did you mean `run.batch_size`?"),
        ("api_key", "a key is never written into a configuration"),
        ("run.openai_api_key", "`model.api_key_env`"),
        ("run.output_dir", "`--export-dir` says where exports go"),
        ("run.log_dir", "`--log-dir` says where"),
        ("model.guided_json", "use `model.response_format`"),
    ],
)
def test_keys_that_people_bring_from_elsewhere_come_with_advice(dotted: str, said: str) -> None:
    message = refusal(changed(dotted, "canary"))
    assert f"`{dotted}`" in message
    assert said in message


def test_every_piece_of_advice_names_a_key_that_exists_and_none_that_does() -> None:
    keys = known_keys(Document)
    for name, key in MEANT.items():
        section, _, meant = key.partition(".")
        assert meant in keys[section], key
        assert not any(name in names for names in keys.values()), name
    assert not any(name in names for name in EXPLAINED for names in keys.values())


@pytest.mark.fault("Y11")
@pytest.mark.parametrize(
    ("dotted", "value", "advice"),
    [
        ("model.name", "${CANARY}", "set LLM_MODEL"),
        ("model.temperature", "${CANARY}", "write the value itself"),
        ("model.response_format", {"a": ["${CANARY}"]}, "write the value itself"),
        ("model.body", {"a": {"b": "x ${CANARY}"}}, "write the value itself"),
        ("model.api_key_env", "${CANARY}", "write the variable's name without `${}`"),
        ("data.file", "${CANARY}/a.xlsx", "write the value itself"),
        ("run.database", "${CANARY}", "set EXPERIMENTS_DB"),
        ("run.max_narratives", "${CANARY}", "`--max-narratives`"),
        ("run.experiment_id", "${CANARY}", "set EXPERIMENT_ID"),
        ("experiment.notes", "of ${CANARY}", "write the value itself"),
        ("prompt.version", "${CANARY}", "write the value itself"),
        ("prompt.user_template_file", "${CANARY}.txt", "write the value itself"),
    ],
)
def test_a_variable_where_none_is_filled_in_is_refused_with_what_to_do_instead(
    dotted: str, value: object, advice: str
) -> None:
    message = refusal(changed(dotted, value), environment={"CANARY": "a value that is not looked at"})
    assert f"`{dotted}` uses ${{CANARY}}, and variables are filled in only in `model.api_url`" in message
    assert advice in message


def test_several_variables_out_of_place_make_one_sentence() -> None:
    raw = changed("model.name", "${A}-${B}", changed("data.file", "${C}"))
    message = refusal(raw)
    assert "`model.name` uses ${A}, ${B}; `data.file` uses ${C}, and variables" in message
    assert message.endswith("set LLM_MODEL, or write the model's name itself; write the value itself")


def test_what_takes_the_place_of_a_setting_makes_its_variable_harmless() -> None:
    raw = changed("model.name", "${A}", changed("run.database", "${B}"))
    config = parsed(raw, environment={"LLM_MODEL": "m", "EXPERIMENTS_DB": "env.db"})
    assert (config.model.name, config.operational.database) == ("m", "env.db")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.response_format": "json_object"}, "the prompts do not speak of JSON"),
        ({"model.response_format": {"type": "json_object"}}, "the prompts do not speak of JSON"),
        ({"model.api_url": "http://h/openai/deployments/d?api-version=1"}, "write `provider: azure`"),
    ],
)
def test_what_will_probably_be_refused_is_noticed(changes: dict[str, object], words: str) -> None:
    raw = deepcopy(COMPLETE)
    for dotted, value in changes.items():
        raw = changed(dotted, value, raw)
    assert any(words in notice for notice in notices(parsed(raw)))
    raw["prompt"] |= {"system_prompt": "Answer in JSON."}
    raw["model"] |= {"provider": "azure"}
    assert not any(words in notice for notice in notices(parsed(raw)))


@pytest.mark.parametrize("dotted", ["operational", "ignored_keys", "run.ignored_keys", "prompt.zzz"])
def test_inner_names_are_no_keys(dotted: str) -> None:
    assert f"unknown key `{dotted}`" in refusal(changed(dotted, {}))


@pytest.mark.fault("Y13")
def test_a_key_in_the_file_is_refused_and_not_repeated() -> None:
    message = refusal(changed("model.api_key", "sk-canary"))
    assert "`model.api_key_env`" in message


def test_many_faults_make_one_bounded_sentence() -> None:
    message = refusal({f"canarx{number}": 1 for number in range(50)} | {"x" * 500: 1, "\x1b[2J": 1})
    assert "more" in message
    assert len(message) < 1000
    assert "\x1b" not in message


@pytest.mark.parametrize(("written", "meant"), [(False, None), ("off", None), (None, None), ("auto", "auto")])
def test_off_is_the_same_as_nothing_however_yaml_reads_the_word(written: object, meant: object) -> None:
    assert parsed(changed("model.response_format", written)).model.response_format == meant


@pytest.mark.parametrize(
    "provider", ["lmstudio", "LM Studio", "openai-compatible", "openai_compatible", "OpenAI", "vllm"]
)
def test_provider_keeps_its_name_and_means_openai_compatible(provider: str) -> None:
    model = parsed(changed("model.provider", provider)).model
    assert model.provider == provider
    assert model.provider_kind is ProviderKind.OPENAI_COMPATIBLE


def test_simulated_provider_has_a_simulation_and_no_address() -> None:
    config = parsed(SIMULATED)
    assert config.simulation == SimulationSection()
    assert config.model.provider_kind is ProviderKind.SIMULATED
    message = refusal(changed("model.api_url", "http://localhost/v1", SIMULATED))
    assert "`model`: `api_url` has no place beside provider simulated" in message


def test_faults_of_the_simulation_are_checked_by_name_and_share() -> None:
    simulation = parsed(changed("simulation", {"fault_rates": {"http_500": 0.1}}, SIMULATED)).simulation
    assert simulation is not None
    assert simulation.fault_rates == {"http_500": 0.1}
    for rates, fragment in (
        ({"http_999": 0.1}, "`simulation.fault_rates.http_999` must be `http_400`"),
        ({"http_500": 1.1}, "`simulation.fault_rates.http_500` must be at most 1"),
    ):
        assert fragment in refusal(changed("simulation", {"fault_rates": rates}, SIMULATED))


@pytest.mark.fault("Y11")
def test_an_endpoint_needs_an_address() -> None:
    raw = deepcopy(COMPLETE)
    del raw["model"]["api_url"]
    assert "`api_url` is missing; write it, or set LLM_API_URL" in refusal(raw)


def test_two_sources_of_the_key_contradict_each_other() -> None:
    raw = changed("model.api_key_env", "A")
    raw["model"]["api_key_file"] = "b"
    assert "contradict" in refusal(raw)


# --- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("Y11", "Y12")
def test_prompt_files_become_texts() -> None:
    raw = changed("prompt", {"version": "v1", "system_prompt_file": "s.txt", "user_template_file": "u.txt"})
    texts = {"s.txt": "the system ${HOME}\n", "u.txt": "<<TEXT>>\n"}
    config = parsed(raw, read_text=texts.__getitem__, environment={"HOME": "expanded"})
    assert config.prompt.system_prompt == "the system ${HOME}\n"
    assert config.prompt.user_template == "<<TEXT>>\n"
    assert "`prompt.system_prompt` contains `${`" in notices(config)[0]
    assert "system_prompt_file" in raw["prompt"], "the document that was given is left as it was"


@pytest.mark.fault("Y12")
def test_a_missing_prompt_file_is_named_with_its_key() -> None:
    raw = changed("prompt", {"version": "v1", "user_template_file": "absent.txt"})
    assert "`prompt.user_template_file`: absent.txt: there is no such file" in refusal(raw)


@pytest.mark.parametrize("value", [5, " ", ["a"]])
def test_a_prompt_file_must_be_named_by_text(value: object) -> None:
    raw = changed("prompt", {"version": "v1", "user_template_file": value})
    assert "`prompt.user_template_file` must be the name of a file" in refusal(raw)


@pytest.mark.fault("Y12")
def test_a_prompt_and_a_prompt_file_contradict_each_other() -> None:
    assert "contradict" in refusal(changed("prompt.system_prompt_file", "s.txt"))


def test_a_placeholder_in_the_system_prompt_is_noticed() -> None:
    config = parsed(changed("prompt.system_prompt", "about <<TEXT>>"))
    assert any("`prompt.system_prompt` contains <<TEXT>>" in notice for notice in notices(config))


def test_repr_shows_no_prompt() -> None:
    assert "canary:" not in repr(parsed(COMPLETE))
    assert "system canary" not in repr(parsed(COMPLETE))


# --- environment and flags -------------------------------------------------------------------------------------------


def test_flag_beats_environment_beats_file() -> None:
    environment = {"LLM_API_URL": "http://10.0.0.1/v1", "LLM_MODEL": "other", "EXPERIMENTS_DB": "env.db"}
    config = parsed(COMPLETE, environment=environment)
    assert (config.model.api_url, config.model.name) == ("http://10.0.0.1/v1", "other")
    assert config.operational.database == "env.db"
    assert notices(config, environment) == (
        "`model.api_url` comes from LLM_API_URL",
        "`model.name` comes from LLM_MODEL",
    )
    flags = {"model.api_url": "http://10.0.0.2/v1", "run.database": "flag.db", "run.max_narratives": 3}
    config = parsed(COMPLETE, environment=environment, overrides=flags)
    assert config.model.api_url == "http://10.0.0.2/v1"
    assert config.operational.database == "flag.db"
    assert config.run.max_narratives == 3


def test_openai_base_url_only_fills_a_gap() -> None:
    environment = {"OPENAI_BASE_URL": "http://10.0.0.3/v1"}
    assert parsed(COMPLETE, environment=environment).model.api_url == COMPLETE["model"]["api_url"]
    raw = deepcopy(COMPLETE)
    del raw["model"]["api_url"]
    assert parsed(raw, environment=environment).model.api_url == "http://10.0.0.3/v1"
    both = environment | {"LLM_API_URL": "http://10.0.0.4/v1"}
    assert parsed(raw, environment=both).model.api_url == "http://10.0.0.4/v1"


def test_environment_never_turns_a_simulation_into_something_else() -> None:
    environment = {"LLM_API_URL": "http://10.0.0.1/v1", "LLM_MODEL": "other", "OPENAI_BASE_URL": "http://x/v1"}
    config = parsed(SIMULATED, environment=environment)
    assert config == parsed(SIMULATED)
    assert [notice.split()[0] for notice in notices(config, environment)] == ["LLM_API_URL", "LLM_MODEL"]


def test_empty_variables_count_as_unset() -> None:
    environment = {"LLM_API_URL": "", "LLM_MODEL": "", "EXPERIMENTS_DB": "", "OPENAI_BASE_URL": ""}
    assert apply_environment(COMPLETE, environment) == COMPLETE


# --- any document ----------------------------------------------------------------------------------------------------

keys = st.sampled_from(
    ["experiment", "model", "prompt", "data", "run", "privacy", "simulation", "name", "provider", "api_url", "file"]
) | st.text(max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(st.characters(exclude_categories=()))
)
values = st.recursive(
    scalars | st.sampled_from(["simulated", "lmstudio", "http://localhost/v1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)


def sentence_about(raw: Mapping[str, object], environment: Mapping[str, str]) -> str | None:
    try:
        parsed(raw, environment=environment)
    except ConfigurationError as error:
        return str(error)
    return None


@example({"[key]": None}, {})  # what pydantic calls the key of a mapping
@given(st.dictionaries(keys, values), st.dictionaries(st.sampled_from(["LLM_API_URL", "EXPERIMENTS_DB"]), st.text()))
def test_any_document_ends_as_settings_or_as_one_sentence(raw: dict[str, object], environment: dict[str, str]) -> None:
    assert (sentence_about(raw, environment) or "exp.yaml: ").startswith("exp.yaml: ")


@given(st.sampled_from(sorted(COMPLETE)), keys, values)
def test_any_setting_ends_as_settings_or_as_one_sentence(section: str, key: str, value: object) -> None:
    assert (sentence_about(changed(f"{section}.{key}", value), {}) or "exp.yaml: ").startswith("exp.yaml: ")
