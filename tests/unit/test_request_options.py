"""What may be added to a request: headers, query and body fields, and no secret in any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from narrun_async.config import ModelSection, expand_fields
from narrun_async.config.request_options import check_body, check_headers, check_key_header, check_query
from narrun_async.errors import ConfigurationError

Check = Callable[[Any], Any]


def model(**settings: object) -> ModelSection:
    fields = {"name": "m", "provider": "lmstudio", "api_url": "http://localhost:1234/v1", "temperature": 0.2}
    return ModelSection.model_validate(fields | settings)


@pytest.mark.parametrize(
    ("check", "fields"),
    [
        (check_headers, {"OpenAI-Project": "p 1", "x_trace": "${TRACE}", "X-Author": "me", "X-User": "${USER}"}),
        (check_query, {"api-version": "2024-10-21", "region": "${REGION}", "empty": "", "name": "Ängstrom & co"}),
        (check_body, {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["\n"], "min_tokens": 1}),
    ],
)
def test_what_is_no_secret_and_nobody_elses_is_taken_as_written(check: Check, fields: dict[str, object]) -> None:
    assert check(dict(fields)) == fields


@pytest.mark.parametrize(
    ("check", "fields", "said"),
    [
        (check_headers, {"Authorization": "Bearer canary"}, "keys come from `model.api_key_env`"),
        (check_headers, {"api-key": "canary"}, "`model.api_key_header: api-key`"),
        (check_headers, {"Ocp-Apim-Subscription-Key": "canary"}, "`model.api_key_header: Ocp-Apim-Subscription-Key`"),
        (check_headers, {"X-Auth": "canary"}, "sounds like a credential"),
        (check_headers, {"X-Trace": "${OPENAI_API_KEY}"}, "must not contain the key (${OPENAI_API_KEY})"),
        (check_headers, {"content-length": "1"}, "`content-length` is set by the program itself"),
        (check_headers, {"Transfer-Encoding": "chunked"}, "is set by the program itself"),
        (check_headers, {"X A": "canary"}, "no header can have"),
        (check_headers, {"": "canary"}, "no header can have"),
        (check_headers, {"X-A": "canary\r\nX-B: c"}, "`X-A` has characters"),
        (check_headers, {"X-A": "cänary"}, "`X-A` has characters"),
        (check_headers, {"X-A": " canary"}, "`X-A` has characters"),
        (check_headers, {"X-A": "${canary"}, "is no `${NAME}`"),
        (check_headers, {"X-A": "c" * 2001}, "at most 2,000"),
        (check_headers, {"X-A": "canary", "x-a": "canary"}, "twice"),
        (check_headers, {f"X-{number}": "canary" for number in range(51)}, "more than 50"),
        (check_query, {"key": "canary"}, "a URL is no place for one"),
        (check_query, {"code": "canary"}, "a URL is no place for one"),
        (check_query, {"a b": "canary"}, "no query parameter should have"),
        (check_query, {"a": "canary\n"}, "`a` has control characters"),
        (check_query, {"a": "${MY_TOKEN}"}, "must not contain the key"),
        (check_body, {"temperature": 1}, "`temperature`: use `model.temperature`"),
        (check_body, {"max_completion_tokens": 1}, "use `model.max_completion_tokens`"),
        (check_body, {"messages": ["canary"]}, "`prompt.system_prompt`"),
        (check_body, {"stream": True}, "answers are read whole"),
        (check_body, {"n": 3}, "only be paid for"),
        (check_body, {"guided_json": {"canary": 1}}, "use `model.response_format`"),
        (check_body, {"guided_choice": ["canary"]}, "vLLM dropped it"),
        (check_body, {"api_key": "canary"}, "must not hold a credential"),
    ],
)
def test_what_cannot_go_along_is_refused_with_what_to_use_and_its_value_not_repeated(
    check: Check, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check(fields)
    assert said in str(caught.value)
    assert "anary" not in str(caught.value)


@pytest.mark.parametrize("name", ["bearer", "api-key", "X-API-Key", "Ocp-Apim-Subscription-Key"])
def test_a_key_may_go_into_any_header_that_is_free(name: str) -> None:
    assert check_key_header(name) == name


@pytest.mark.parametrize("name", ["", "Authorization", "Host", "X Key", "Bearer KEY", "ключ"])
def test_a_key_cannot_go_where_no_key_can_be_sent(name: str) -> None:
    with pytest.raises(ValueError, match="`bearer`"):
        check_key_header(name)


def test_azure_gets_its_key_in_its_own_header_unless_told_otherwise() -> None:
    assert model().key_header == model(provider="openai").key_header == "bearer"
    assert model(provider="Azure OpenAI").key_header == model(provider="azure").key_header == "api-key"
    assert model(provider="azure", api_key_header="bearer").key_header == "bearer"
    assert model(api_key_header="X-API-Key").key_header == "X-API-Key"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 5}, "two names of one limit"),
        ({"api_key_header": "X-Team", "headers": {"x-team": "blue"}}, "must not set `X-Team`, which carries the key"),
        ({"api_url": "http://h/v1?a=1", "query": {"a": "2"}}, "`a` stands in `api_url` and in `query`"),
        ({"api_url": "https://h/openai/deployments/d"}, "needs an `api-version`"),
        ({"api_url": "https://h/openai/deployments/d/chat/completions?a=1"}, "needs an `api-version`"),
        ({"api_url": "${BASE}/openai/deployments/d"}, "needs an `api-version`"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        model(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_url": "https://h/openai/deployments/d?api-version=2024-10-21"},
        {"api_url": "https://h/openai/deployments/d?Api-Version=2024-10-21"},
        {"api_url": "https://h/openai/deployments/d", "query": {"api-version": "2024-10-21"}},
        {"api_url": "https://h/openai/v1"},
        {"api_url": "${BASE}"},
    ],
)
def test_an_azure_address_is_whole_with_its_version_here_or_there(settings: dict[str, object]) -> None:
    assert model(provider="azure", **settings).api_url == settings["api_url"]


def test_variables_of_headers_and_query_are_filled_in_for_the_run() -> None:
    fields = {"X-Team": "team ${TEAM}", "X-Plain": "p"}
    assert expand_fields(fields, {"TEAM": "blue"}, key="model.headers") == {"X-Team": "team blue", "X-Plain": "p"}
    with pytest.raises(ConfigurationError, match=r"`model\.headers\.X-Team` uses \$\{TEAM\}.*TEAM is not set"):
        expand_fields(fields, {}, key="model.headers")
    with pytest.raises(ConfigurationError, match="control characters") as caught:
        expand_fields(fields, {"TEAM": "canary\r\nX-Evil: 1"}, key="model.headers")
    assert "canary" not in str(caught.value)
