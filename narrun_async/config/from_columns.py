"""Owns the way from the columns of a predecessor's experiment to settings: what it asked, and whom, is never guessed.

What the predecessor did not store (where the key comes from, whether narratives may leave, how doubtful rows of the
file are taken) may come from a configuration; prompts, model, URL and temperature come from the columns alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from narrun_async.config.complaints import complaint_about
from narrun_async.config.sections import (
    MAX_SEED,
    PLACEHOLDER,
    ExperimentConfig,
    FrozenSections,
    OperationalSettings,
    ProviderKind,
    provider_kind_of,
)
from narrun_async.config.urls import check_api_url
from narrun_async.config.values import MAX_LINE_CHARS
from narrun_async.errors import ConfigurationError

#: keys of `model` that the predecessor did not store and that do not change what is asked
_OF_THE_KEY = ("api_key_env", "api_key_file", "api_key_header")

_ADVICE = "what was asked cannot be guessed, so this experiment stays readable and cannot go on"
_ADVICE_ON_URL = (
    "give the address with --api-url; a key comes from OPENAI_API_KEY, or from what `model.api_key_env` or"
    " `api_key_file` of a configuration that is named with --config says"
)


def config_from_columns(
    columns: Mapping[str, object],
    *,
    data_file: str,
    max_narratives: int | None,
    api_url: str | None,
    given: ExperimentConfig | None,
    operational: OperationalSettings,
) -> ExperimentConfig:
    """The configuration of an experiment that was created without one.

    :param columns: its row of `experiments`
    :param data_file: where the row names none
    :param api_url: an address that a person gives, for a row whose own cannot be stored
    :param given: the configuration that was named, if one was
    :raises ConfigurationError: a column is empty, or holds what cannot be asked or stored; the sentence names it
    """
    experiment_id = columns["experiment_id"]
    stored_url = columns.get("api_url")
    problems = _problems(columns)
    url_problem = _url_problem(stored_url)
    if url_problem is not None and api_url is None:
        problems.append(url_problem)
    if problems:
        advice = _ADVICE_ON_URL if problems == [url_problem] else _ADVICE
        raise ConfigurationError(f"experiment {experiment_id}: {'; '.join(problems)}", advice=advice)
    document = {
        "experiment": {
            "name": _line(columns.get("experiment_name")) or str(experiment_id),
            # The predecessor's files named one author, that of the experiment.
            "author": _line(columns.get("prompt_author")),
            "notes": _text(columns.get("notes")),
        },
        "model": {
            "name": _line(columns["model_name"]),
            "provider": _provider(columns.get("model_provider")),
            "api_url": stored_url if url_problem is None else api_url,
            "temperature": float(str(columns["temperature"])),
            **{key: getattr(given.model, key) for key in _OF_THE_KEY if given is not None},
        },
        "prompt": {
            "version": _line(columns.get("prompt_version")) or "unknown",
            "system_prompt": _text(columns.get("system_prompt")),
            "user_template": columns["user_template"],
        },
        "data": (given.data.model_dump() if given is not None else {})
        | {"file": _line(columns.get("data_file")) or data_file},
        "run": {"seed": _seed(columns.get("run_seed")), "max_narratives": max_narratives},
        "privacy": given.privacy.model_dump() if given is not None else {},
    }
    try:
        sections = FrozenSections.model_validate(document)
    except ValidationError as error:
        # not chained: the validation error holds the prompts
        origin = f"the columns of experiment {experiment_id}"
        raise ConfigurationError(complaint_about(error, known=FrozenSections, origin=origin)) from None
    frozen = {name: getattr(sections, name) for name in FrozenSections.model_fields}
    return ExperimentConfig(**frozen, operational=operational)


def _problems(columns: Mapping[str, object]) -> list[str]:
    problems = []
    if _line(columns.get("model_name")) is None:
        problems.append("its column `model_name` is empty")
    temperature = columns.get("temperature")
    if temperature is None:
        problems.append("its column `temperature` is empty")
    elif not isinstance(temperature, int | float):
        problems.append("its column `temperature` holds no number")
    template = columns.get("user_template")
    if not isinstance(template, str) or PLACEHOLDER not in template:
        problems.append(f"its column `user_template` has no {PLACEHOLDER}, where the narrative would go")
    return problems


def _url_problem(url: object) -> str | None:
    if not isinstance(url, str) or not url.strip():
        return "its column `api_url` is empty"
    try:
        check_api_url(url)
    except ValueError as error:
        return f"its column `api_url` {error}"
    return None


def _provider(stored: object) -> str:
    """Whatever the predecessor called its server, it spoke the chat completions protocol."""
    provider = _line(stored) or ""
    is_known = provider_kind_of(provider) not in (None, ProviderKind.SIMULATED)
    return provider if is_known else ProviderKind.OPENAI_COMPATIBLE.value


def _seed(stored: object) -> int | None:
    """It is recorded and never sent; one that cannot be stored stays in its column."""
    return stored if isinstance(stored, int) and 0 <= stored <= MAX_SEED else None


def _line(stored: object) -> str | None:
    """One line without control characters; None where nothing is left."""
    if not isinstance(stored, str):
        return None
    printable = "".join(sign if sign.isprintable() else " " for sign in stored)
    return " ".join(printable.split())[:MAX_LINE_CHARS] or None


def _text(stored: object) -> str | None:
    return stored if isinstance(stored, str) and stored.strip() else None
