"""Which URL requests go to, and which URLs, keys and headers are refused."""

from __future__ import annotations

import pytest

from narrun_async.errors import ConfigurationError
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider, completions_url


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h:1234", "http://h:1234/v1/chat/completions"),
        ("http://h:1234/", "http://h:1234/v1/chat/completions"),
        ("http://h:1234/v1", "http://h:1234/v1/chat/completions"),
        ("http://h:1234/v1/", "http://h:1234/v1/chat/completions"),
        ("http://h:1234/v1/chat/completions", "http://h:1234/v1/chat/completions"),
        (" https://h/api/v3 \n", "https://h/api/v3/chat/completions"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/chat/completions"),
        ("https://h/llm", "https://h/llm/v1/chat/completions"),
        ("https://h/d/chat/completions?api-version=2", "https://h/d/chat/completions?api-version=2"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/chat/completions"),
        (
            "https://r/openai/deployments/d?api-version=2",
            "https://r/openai/deployments/d/chat/completions?api-version=2",
        ),
        (
            "https://r/openai/deployments/v2/?api-version=2",
            "https://r/openai/deployments/v2/chat/completions?api-version=2",
        ),
        ("https://r/openai/v1/", "https://r/openai/v1/chat/completions"),
    ],
)
def test_base_version_and_full_urls_lead_to_chat_completions(given: str, expected: str) -> None:
    assert completions_url(given) == expected
    assert completions_url(expected) == expected


@pytest.mark.parametrize("given", ["https://r", "https://r/openai", "https://r/openai/", "https://r/openai/v1"])
def test_the_address_of_an_azure_resource_means_the_newer_of_its_two_forms(given: str) -> None:
    assert completions_url(given, is_azure=True) == "https://r/openai/v1/chat/completions"


def test_query_parameters_are_added_encoded_except_those_that_the_url_names() -> None:
    query = {"api-version": "2", "name": "a b&c=ä"}
    assert completions_url("https://r/openai/deployments/d", query=query).endswith(
        "/d/chat/completions?api-version=2&name=a%20b%26c%3D%C3%A4"
    )
    assert completions_url("https://r/v1?api-version=3", query=query).endswith(
        "/v1/chat/completions?api-version=3&name=a%20b%26c%3D%C3%A4"
    )


def test_an_azure_deployment_without_its_version_is_refused_with_what_to_add() -> None:
    with pytest.raises(ConfigurationError, match=r"names no api-version .*\?api-version="):
        completions_url("https://r/openai/deployments/d/chat/completions")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1234",
        "localhost/v1",
        "ftp://h",
        "file:///v1",
        "http://",
        "http://h:99999",
        "http://h:0",
        "http://h /v1",
        "http://a..b/v1",
        "http://./v1",
        f"http://{'a' * 64}/v1",
        "http://[v1.x]/v1",
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        completions_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:canary@h/v1",
        "http://canary@h/v1",
        "http://h/v1?api_key=canary",
        "http://h/v1?Key=canary",
        "http://h/v1?access-token=canary",
        "http://h/v1?a=1&subscriptionKey=canary",
        "http://h/v1?sig=canary",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        completions_url(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("key", ["canary\nX-Evil: 1", "canary canary", "canary\u00e9"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAICompatibleProvider(url="http://h", api_key=key)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "headers", [{"Authorization": "x"}, {"content-length": "1"}, {"Cookie": "a"}, {"A b": "x"}, {"X-A": "a\r\nb: c"}]
)
def test_extra_headers_cannot_replace_the_requests_own_or_smuggle_another(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        OpenAICompatibleProvider(url="http://h", api_key=None, extra_headers=headers)
