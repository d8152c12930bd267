"""The endpoint's address and key: nothing secret is stored, nothing missing goes unnoticed."""

from __future__ import annotations

import pytest

from narrun_async.config import ModelSection, expand_url, resolve_api_key
from narrun_async.config.urls import check_api_url
from narrun_async.errors import ConfigurationError


def model(**settings: object) -> ModelSection:
    fields = {"name": "m", "provider": "lmstudio", "api_url": "http://localhost:1234/v1", "temperature": 0.2}
    return ModelSection.model_validate(fields | settings)


def no_files(name: str) -> str:
    raise ConfigurationError(f"{name}: there is no such file")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1234/v1/chat/completions",
        "http://localhost:1234",
        "https://[::1]:8080/v1",
        "https://host.example/openai?api-version=2024-02-01",
        "http://host/a@b",
        "${LLM_BASE}",
        "${LLM_BASE}/v1",
        "http://${HOST}:${PORT}/v1",
        "http://${LLM_HOST}/v1?region=${REGION}",
    ],
)
def test_addresses_that_are_taken_stay_as_written(url: str) -> None:
    assert check_api_url(url) == url


@pytest.mark.fault("Y11")
@pytest.mark.parametrize(
    ("url", "fragment"),
    [
        ("http://user:canary@host/v1", "user or password"),
        ("http://canary@host/v1", "user or password"),
        ("http://${USER}:${PASS}@host/v1", "key"),
        ("http://${A}:${B}@host/v1", "user or password"),
        ("${A}:canary@host/v1", "user or password"),
        ("http://host:canary/v1", "host or port"),
        ("http://host/{x}", "braces"),
        ("http://host/v1?api_key=canary", "key in its query"),
        ("http://host/v1?a=1&Access-Token=canary", "key in its query"),
        ("http://host/v1?sig=canary", "key in its query"),
        ("${BASE}?key=canary", "key in its query"),
        ("http://host/${OPENAI_API_KEY}/v1", "key"),
        ("http://host/v1#canary", "fragment"),
        ("http://host/${/v1", "${NAME}"),
        ("http://host/${A-B}/v1", "${NAME}"),
        ("ftp://host/v1", "http://"),
        ("localhost:1234/v1", "http://"),
        ("http:///v1", "host"),
        ("http://host:99999/v1", "port"),
        ("http://[::1/v1", "host or port"),
        ("http://host /v1", "blanks"),
        ("http://host\n/v1", "blanks"),
        ("http://host\\@canary/v1", "backslashes"),
        ("http://höst/v1", "ASCII"),
        ("", "http://"),
        ("http://host/" + "x" * 3000, "characters long"),
    ],
)
def test_addresses_that_are_refused_are_not_repeated(url: str, fragment: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_api_url(url)
    assert fragment in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_variables_are_filled_in_once() -> None:
    environment = {"HOST": "10.0.0.1", "PORT": "80"}
    assert expand_url("http://${HOST}:${PORT}/v1", environment) == "http://10.0.0.1:80/v1"
    with pytest.raises(ConfigurationError, match="braces"):
        expand_url("http://${A}/v1", {"A": "${HOST}", "HOST": "10.0.0.1"})


@pytest.mark.fault("Y11")
@pytest.mark.parametrize("environment", [{}, {"HOST": ""}])
def test_a_missing_variable_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"`model.api_url` uses \$\{HOST\}.*HOST is not set"):
        expand_url("http://${HOST}/v1", environment)


@pytest.mark.fault("Y11")
@pytest.mark.parametrize("value", ["http://u:canary@h", "http://h?token=canary", "file:///canary", "h\nx: canary"])
def test_what_a_variable_brings_is_checked_too(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        expand_url("${BASE}/v1", {"BASE": value})
    assert "canary" not in str(caught.value)


def test_the_usual_variable_is_used_where_it_is_set_and_not_missed_where_it_is_not() -> None:
    assert resolve_api_key(model(), {"OPENAI_API_KEY": " sk-1\n"}, read_text=no_files) == "sk-1"
    assert resolve_api_key(model(), {}, read_text=no_files) is None
    assert resolve_api_key(model(), {"OPENAI_API_KEY": ""}, read_text=no_files) is None


@pytest.mark.fault("Y13")
def test_a_named_variable_must_be_set() -> None:
    named = model(api_key_env="MY_KEY")
    assert resolve_api_key(named, {"MY_KEY": "sk-2", "OPENAI_API_KEY": "sk-1"}, read_text=no_files) == "sk-2"
    with pytest.raises(ConfigurationError, match="MY_KEY, which is not set"):
        resolve_api_key(named, {"OPENAI_API_KEY": "sk-1"}, read_text=no_files)


def test_a_key_file_is_read_and_its_name_may_hold_variables() -> None:
    files = {"/home/me/key": "sk-3\n"}
    with_file = model(api_key_file="${HOME}/key")
    key = resolve_api_key(with_file, {"HOME": "/home/me", "OPENAI_API_KEY": "sk-1"}, read_text=files.__getitem__)
    assert key == "sk-3"
    with pytest.raises(ConfigurationError, match="HOME is not set"):
        resolve_api_key(with_file, {}, read_text=files.__getitem__)


@pytest.mark.fault("Y13")
def test_a_missing_key_file_is_named_with_its_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"`model.api_key_file`: none\.key: there is no such file"):
        resolve_api_key(model(api_key_file="none.key"), {}, read_text=no_files)


@pytest.mark.fault("Y13")
@pytest.mark.parametrize("content", ["", "\n", "canary one\ncanary two", "canary\x00", "canäry", "canary" * 5000])
def test_something_that_is_no_key_is_refused_and_not_repeated(content: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_api_key(model(api_key_file="key"), {}, read_text=lambda _: content)
    assert "can" not in str(caught.value)
