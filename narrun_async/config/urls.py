"""Owns the endpoint's address and where its key comes from; a key is resolved for one run and stored nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from narrun_async.errors import ConfigurationError

if TYPE_CHECKING:
    from narrun_async.config.sections import ModelSection

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_URL_CHARS = 2_000
#: far longer than any key, far shorter than a file that was named by mistake
MAX_KEY_CHARS = 8_192

#: in the path of Azure's older form; its newer one ends in `/openai/v1`
DEPLOYMENTS = "/openai/deployments/"

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: a `${` that no variable's name follows
BROKEN_VARIABLE = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\})")
#: an author is no authorization
_SECRET_WORDS = re.compile(r"key|token|secret|passw|pwd|auth(?!or(?!i))|credential|signature")
_SECRET_NAMES = frozenset({"sig", "sas", "code", "pass", "user", "username", "session", "sid", "jwt"})
#: everybody's environment has these, and who is asking is no secret
_HARMLESS_VARIABLES = frozenset({"user", "username"})


def check_api_url(url: str) -> str:
    """The URL as written, `${NAME}` included.

    :raises ValueError: it cannot become an http(s) URL, or it holds or asks for a secret; the message shows none of it
    """
    refuse_secret_variables(url)
    if BROKEN_VARIABLE.search(url):
        raise ValueError("has a `${` that is no `${NAME}`")
    without_variables = VARIABLE.sub("1", url)
    if VARIABLE.match(url):
        # the variable brings scheme and host: what follows it is all that can be judged before it is known
        rest = without_variables[1:]
        without_variables = f"http://host{rest if rest[:1] in ('/', '?', ':') or not rest else '/' + rest}"
    _check_parts(without_variables)
    return url


def _check_parts(url: str) -> None:
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"must be at most {MAX_URL_CHARS:,} characters long")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must not contain blanks, backslashes, control characters or letters outside ASCII")
    if "{" in url or "}" in url:
        raise ValueError("must not contain braces, except in ${NAME}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # not chained: the error of the standard library repeats what it could not read
        raise ValueError("is not a URL (host or port)") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must start with http:// or https:// and a host, such as http://localhost:1234/v1")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password; keys come from `model.api_key_env` or `api_key_file`")
    if "#" in url:
        raise ValueError("must not contain a fragment (#)")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if sounds_secret(name):
            raise ValueError("must not carry a key in its query; keys come from `model.api_key_env` or `api_key_file`")


def sounds_secret(name: str) -> bool:
    """Whether something of this name may be a key or password."""
    lowered = name.casefold()
    return lowered in _SECRET_NAMES or _SECRET_WORDS.search(lowered) is not None


def refuse_secret_variables(value: str) -> None:
    """:raises ValueError: a `${NAME}` in it asks for a key"""
    for name in VARIABLE.findall(value):
        if name.casefold() not in _HARMLESS_VARIABLES and sounds_secret(name):
            raise ValueError(f"must not contain the key (${{{name}}}); name the variable in `model.api_key_env`")


def expand_url(url: str, environment: Mapping[str, str]) -> str:
    """The URL to dial, every `${NAME}` replaced once (a value is never expanded again).

    :raises ConfigurationError: a variable is not set, or the result is not a URL that may be used
    """
    expanded = _expand(url, environment, key="model.api_url")
    try:
        _check_parts(expanded)
    except ValueError as error:
        raise ConfigurationError(f"`model.api_url`, with its variables filled in, {error}") from None
    return expanded


def lacks_api_version(url: str, query: Mapping[str, str]) -> bool:
    """Whether a URL is one of Azure's deployments, which answer 404 where no api-version is named, and none is."""
    parts = urlsplit(url)
    named = {name.casefold() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    return DEPLOYMENTS in parts.path and "api-version" not in named | {name.casefold() for name in query}


def expand_fields(fields: Mapping[str, str], environment: Mapping[str, str], *, key: str) -> dict[str, str]:
    """Header fields or query parameters to send, every `${NAME}` replaced once.

    :raises ConfigurationError: a variable is not set, or brings characters that cannot be sent
    """
    expanded = {name: _expand(value, environment, key=f"{key}.{name}") for name, value in fields.items()}
    for name, value in expanded.items():
        if not value.isprintable():
            raise ConfigurationError(f"`{key}.{name}`, with its variables filled in, has control characters")
    return expanded


def resolve_api_key(
    model: ModelSection, environment: Mapping[str, str], *, read_text: Callable[[str], str]
) -> str | None:
    """The key for this run, or None where the endpoint gets none.

    :param read_text: reads a file whose name is relative to the working directory (a resumed run has no YAML file)
    :raises ConfigurationError: a variable or file that the configuration names is missing or holds no key
    """
    if model.api_key_file is not None:
        path = _expand(model.api_key_file, environment, key="model.api_key_file")
        try:
            text = read_text(path)
        except ConfigurationError as error:
            raise ConfigurationError(f"`model.api_key_file`: {error.problem}", advice=error.advice) from error
        return _checked_key(text, source=f"the file of `model.api_key_file` ({model.api_key_file})")
    if model.api_key_env is None:
        key = environment.get(DEFAULT_KEY_VARIABLE, "")
        return _checked_key(key, source=DEFAULT_KEY_VARIABLE) if key.strip() else None
    if not environment.get(model.api_key_env, "").strip():
        raise ConfigurationError(
            f"`model.api_key_env` names {model.api_key_env}, which is not set",
            advice="set the variable, or remove the setting if the endpoint needs no key",
        )
    return _checked_key(environment[model.api_key_env], source=model.api_key_env)


def _checked_key(text: str, *, source: str) -> str:
    key = text.strip()
    if not key:
        raise ConfigurationError(f"{source} holds no key")
    # a key goes into a header: a line break would end it, and another letter cannot be sent
    if not key.isascii() or not key.isprintable() or " " in key or len(key) > MAX_KEY_CHARS:
        raise ConfigurationError(f"{source} holds something that is not one key on one line")
    return key


def _expand(value: str, environment: Mapping[str, str], *, key: str) -> str:
    for name in VARIABLE.findall(value):
        if not environment.get(name):
            raise ConfigurationError(
                f"`{key}` uses ${{{name}}}, and the environment variable {name} is not set",
                advice=f"set {name}, or write the value into `{key}`",
            )
    return VARIABLE.sub(lambda match: environment[match.group(1)], value)
