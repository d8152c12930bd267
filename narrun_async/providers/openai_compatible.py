"""An OpenAI-compatible endpoint behind the ChatProvider seam: where requests go, and with which headers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import httpx

from narrun_async import __version__
from narrun_async.config.request_options import BEARER, HEADER_NAME, HEADER_VALUE, RESERVED_HEADERS
from narrun_async.config.urls import lacks_api_version
from narrun_async.errors import ConfigurationError
from narrun_async.models import RawReply
from narrun_async.providers.aiohttp_transport import DEFAULT_MAX_BODY_BYTES, AiohttpTransport

_COMPLETIONS = "/chat/completions"
_VERSION_SEGMENT = re.compile(r"v\d+[a-z0-9]*")
_SECRET_WORDS = frozenset({"auth", "authorization", "credential", "credentials", "pwd", "sig", "signature"})
_SECRET_ENDINGS = ("key", "token", "secret", "password")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
#: shorter ones are stand-ins for servers that want none ("EMPTY", "lm-studio"), and may be words of an answer
_SHORTEST_SECRET = 16
NO_QUERY: Mapping[str, str] = MappingProxyType({})


def completions_url(url: str, *, is_azure: bool = False, query: Mapping[str, str] = NO_QUERY) -> str:
    """The full chat completions URL for a base URL, one that ends in a version, or the full URL; its query is kept.

    :param is_azure: a base URL is that of an Azure resource, which has `/openai` before the version
    :param query: parameters to add, except those that the URL names itself
    :raises ConfigurationError: it is no http(s) URL, it carries credentials, or it lacks Azure's api-version
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and parts.port != 0 and bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        is_http = False
    if not is_http or not _VISIBLE.fullmatch(url) or not _is_host(parts.hostname or ""):
        raise ConfigurationError(
            "the endpoint URL is not an http or https URL with a host",
            advice="give it as http://localhost:1234/v1/chat/completions",
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the endpoint URL holds a user name or password", advice="put the key into OPENAI_API_KEY"
        )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _is_secret(name):
            raise ConfigurationError(
                f"the query parameter {name!r} of the endpoint URL looks like a credential",
                advice="put the key into OPENAI_API_KEY",
            )
    path = _completions_path(parts.path.rstrip("/"), is_azure=is_azure)
    named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    added = urlencode({name: value for name, value in query.items() if name not in named}, quote_via=quote)
    whole = urlunsplit((parts.scheme, parts.netloc, path, "&".join(filter(None, (parts.query, added))), ""))
    if lacks_api_version(whole, {}):
        raise ConfigurationError(
            "the endpoint URL is an Azure deployment and names no api-version",
            advice="add `?api-version=2024-10-21` to it, or write it under `model.query`",
        )
    return whole


def _completions_path(path: str, *, is_azure: bool) -> str:
    segments = path.split("/")
    if path.endswith(_COMPLETIONS):
        return path
    if segments[-3:-1] == ["openai", "deployments"] or any(_VERSION_SEGMENT.fullmatch(one) for one in segments):
        return path + _COMPLETIONS
    if is_azure:
        return f"{path.removesuffix('/openai')}/openai/v1{_COMPLETIONS}"
    return f"{path}/v1{_COMPLETIONS}"


class OpenAICompatibleProvider:
    """One endpoint, for one event loop. `complete` is one attempt, under the caller's deadline."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str | None,
        allow_remote: bool = False,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        extra_headers: Mapping[str, str] | None = None,
        key_header: str = BEARER,
    ) -> None:
        """:param key_header: the header that carries the key as it is, or `bearer`

        :raises ConfigurationError: a URL, key or header that cannot be sent
        """
        self._url = httpx.URL(completions_url(url))
        self._headers = httpx.Headers(request_headers(api_key, extra_headers or {}, key_header=key_header))
        self._secrets = written_forms(api_key)
        # Not inside an httpx.AsyncClient: its redirects, cookies, proxies and authentication are all unwanted here, and
        # going past them takes 0.1 ms of CPU a call.
        self._transport = AiohttpTransport(allow_remote=allow_remote, max_body_bytes=max_body_bytes)

    async def complete(self, body: bytes) -> RawReply:
        """See `ports.ChatProvider`; the headers of the reply are looked up in any case."""
        # `stream`, because with `content` httpx looks through all headers several times.
        request = httpx.Request("POST", self._url, headers=self._headers, stream=httpx.ByteStream(body))
        answer = await self._transport.handle_async_request(request)
        assert isinstance(answer.stream, httpx.ByteStream)
        content = b"".join(answer.stream)
        # A server that repeats the request must not bring the key into our database: answers are kept as they come.
        for secret in self._secrets:
            if secret in content:
                content = content.replace(secret, b"[key]")
        return RawReply(status=answer.status_code, headers=answer.headers, body=content)

    async def aclose(self) -> None:
        """Close every connection; a later `complete` raises RuntimeError."""
        await self._transport.aclose()


def request_headers(api_key: str | None, extra: Mapping[str, str], *, key_header: str = BEARER) -> dict[str, str]:
    """Of every request to an endpoint.

    :param key_header: the header that carries the key as it is, or `bearer`
    :raises ConfigurationError: a key or header that cannot be sent
    """
    headers = {
        "Accept": "application/json",
        # A small compressed answer can unpack to gigabytes.
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"narrun_async/{__version__}",
    }
    for name, value in extra.items():
        if name.lower() in RESERVED_HEADERS or not HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"the header {name!r} cannot be set")
        if not HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"the value of the header {name!r} has characters that a header cannot carry")
        headers[name] = value
    key = (api_key or "").strip()
    if key:
        if not _VISIBLE.fullmatch(key):
            raise ConfigurationError("the API key has characters that a header cannot carry")
        if key_header == BEARER:
            headers["Authorization"] = f"Bearer {key}"
        else:
            headers[key_header] = key
    return headers


def written_forms(api_key: str | None) -> tuple[bytes, ...]:
    """The key as an answer may repeat it: as it is, in a JSON text, and in a JSON text inside one, as models answer."""
    key = (api_key or "").strip()
    if len(key) < _SHORTEST_SECRET:
        return ()
    in_json = json.dumps(key)[1:-1]
    inside_json = json.dumps(in_json)[1:-1]
    forms = (inside_json, inside_json.replace("/", "\\/"), in_json, in_json.replace("/", "\\/"), key)
    return tuple(dict.fromkeys(form.encode() for form in forms))


def _is_host(host: str) -> bool:
    """Whether asyncio can look a name up: its encoder takes labels of 1 to 63 characters, and one dot at the end."""
    return ":" in host or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def _is_secret(name: str) -> bool:
    words = re.split(r"[^a-z0-9]+", name.lower())
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words)
