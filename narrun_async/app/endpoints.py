"""Builds the endpoint of a run: a real one by its URL, or the simulated one, which lives as long as the run."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from narrun_async.answer_format import probe_format, response_format
from narrun_async.caller import CallSpec, FormatChoice
from narrun_async.config import (
    ExperimentConfig,
    ProviderKind,
    SimulationSection,
    expand_fields,
    expand_url,
    resolve_api_key,
)
from narrun_async.config.sections import AUTO
from narrun_async.errors import ConfigurationError, TemporaryError, UsageError
from narrun_async.models import AnswerFormat
from narrun_async.ports import BatchProvider, ChatProvider
from narrun_async.prompting import RequestFields, RequestTemplate, bound_probe_bodies
from narrun_async.retrying import RetryPolicy
from narrun_async.sources.yaml_file import text_reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the calls of a run go."""

    provider: ChatProvider
    #: as dialled
    url: str
    is_simulated: bool
    #: `--api-url` was given
    is_overridden: bool


def check_endpoint(config: ExperimentConfig, environment: Mapping[str, str], *, api_url: str | None) -> None:
    """Look at URL and key without connecting, before anything is stored.

    :raises ConfigurationError: they cannot be used
    :raises UsageError: an override of a simulated endpoint
    """
    expand_fields(config.model.headers, environment, key="model.headers")
    if config.model.provider_kind is not ProviderKind.SIMULATED:
        _refuse_remote_literal(
            endpoint_url(config, environment, api_url=api_url), allow_remote=config.privacy.allow_remote
        )
        _api_key(config, environment)
    elif api_url is not None:
        raise UsageError("--api-url has no place in a simulated experiment")


def endpoint_words(config: ExperimentConfig, environment: Mapping[str, str]) -> str:
    """Where calls would go, and to which model.

    :raises ConfigurationError: it cannot be used
    """
    if config.model.provider_kind is ProviderKind.SIMULATED:
        return f"simulated  model {config.model.name}"
    return f"{endpoint_url(config, environment)}  model {config.model.name}"


def _api_key(config: ExperimentConfig, environment: Mapping[str, str]) -> str | None:
    return resolve_api_key(config.model, environment, read_text=text_reader(Path()))


def endpoint_url(config: ExperimentConfig, environment: Mapping[str, str], *, api_url: str | None = None) -> str:
    """The URL to dial.

    :param api_url: overrides that of the configuration
    :raises ConfigurationError: it cannot be used
    """
    from narrun_async.providers.openai_compatible import completions_url

    model = config.model
    return completions_url(
        expand_url(api_url or model.api_url or "", environment),
        is_azure=model.is_azure,
        query=expand_fields(model.query, environment, key="model.query"),
    )


@asynccontextmanager
async def open_endpoint(
    config: ExperimentConfig, environment: Mapping[str, str], *, api_url: str | None
) -> AsyncIterator[Endpoint]:
    """Connect a configuration to its endpoint; closes every connection at the end.

    :param api_url: overrides the URL of the configuration
    :raises ConfigurationError: the URL or the key cannot be used
    :raises UsageError: an override of a simulated endpoint
    """
    from narrun_async.providers.openai_compatible import OpenAICompatibleProvider

    check_endpoint(config, environment, api_url=api_url)
    async with AsyncExitStack() as open_until_end:
        if config.model.provider_kind is ProviderKind.SIMULATED:
            url, key = await _start_simulation(config.simulation or SimulationSection(), open_until_end), None
        else:
            url, key = endpoint_url(config, environment, api_url=api_url), _api_key(config, environment)
        provider = OpenAICompatibleProvider(
            url=url,
            api_key=key,
            key_header=config.model.key_header,
            allow_remote=config.privacy.allow_remote,
            extra_headers=expand_fields(config.model.headers, environment, key="model.headers"),
        )
        open_until_end.push_async_callback(provider.aclose)
        yield Endpoint(
            provider=provider,
            url=url,
            is_simulated=config.model.provider_kind is ProviderKind.SIMULATED,
            is_overridden=api_url is not None,
        )


@asynccontextmanager
async def open_batch_provider(
    config: ExperimentConfig, environment: Mapping[str, str], *, api_url: str | None
) -> AsyncIterator[tuple[BatchProvider, str]]:
    """Connect a configuration to the Batch API of its endpoint; closes every connection at the end.

    :param api_url: overrides the URL of the configuration
    :returns: the provider, and the URL of chat completions that files and batches lie beside
    :raises ConfigurationError: the URL or the key cannot be used
    :raises UsageError: the endpoint is simulated
    """
    from narrun_async.providers.openai_batches import OpenAIBatchProvider

    if config.model.provider_kind is ProviderKind.SIMULATED:
        raise UsageError(
            "a simulated experiment has no provider that a batch could be sent to",
            advice="for a rehearsal start `narrun simulate`, and create the experiment with its URL and"
            " `provider: openai-compatible`",
        )
    url = endpoint_url(config, environment, api_url=api_url)
    provider = OpenAIBatchProvider(
        url=url,
        api_key=_api_key(config, environment),
        key_header=config.model.key_header,
        allow_remote=config.privacy.allow_remote,
        extra_headers=expand_fields(config.model.headers, environment, key="model.headers"),
    )
    try:
        yield provider, url
    finally:
        await provider.aclose()


async def _start_simulation(section: SimulationSection, open_until_end: AsyncExitStack) -> str:
    from narrun_async.simulation.behaviour import Behaviour
    from narrun_async.simulation.endpoint import SimulatedEndpoint

    endpoint = await open_until_end.enter_async_context(SimulatedEndpoint(Behaviour(**section.model_dump())))
    return endpoint.url


async def addresses_of(url: str) -> list[str]:
    """What the host of a URL stands for now.

    :raises OSError: nobody knows
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname, parts.port or 0, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


async def require_allowed_address(url: str, *, allow_remote: bool) -> None:
    """To be called before it is stored for good whether narratives may leave this machine and private networks.

    The egress guard decides again at every dial.

    :raises ConfigurationError: no call would be let through
    :raises TemporaryError: the host cannot be resolved, so that cannot be known
    """
    from narrun_async.providers.egress import address_is_allowed

    host = urlsplit(url).hostname
    try:
        addresses = await addresses_of(url)
    except OSError as error:
        raise TemporaryError(
            f"{host} cannot be resolved, so it cannot be told whether narratives may be sent there",
            advice="try again when the name is known, or give another address with --api-url; nothing was changed",
        ) from error
    if not any(address_is_allowed(one, allow_remote=allow_remote) for one in addresses):
        leads_to = "" if addresses == [host] else f" ({', '.join(addresses)})"
        raise _forbidden(
            f"{host}{leads_to}",
            advice="give another address with --api-url, or name a configuration with --config that says"
            " `privacy.allow_remote: true` and who approved it; nothing was changed",
        )


def _refuse_remote_literal(url: str, *, allow_remote: bool) -> None:
    """What a name leads to is known when it is dialled; where the address itself is given, it is known at once."""
    from narrun_async.providers.egress import address_is_allowed

    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not address_is_allowed(host, allow_remote=allow_remote):
        raise _forbidden(
            host,
            advice="correct `model.api_url`, or set `privacy.allow_remote: true` and say in `privacy.approval_note` who"
            " approved it; nothing was changed",
        )


def _forbidden(where: str, *, advice: str) -> ConfigurationError:
    return ConfigurationError(
        f"calls may go to this machine and private addresses only, and {where} is none", advice=advice
    )


def call_spec(config: ExperimentConfig, decided: AnswerFormat | None = None) -> CallSpec:
    """What every call of an experiment is made of.

    :param decided: what a probe decided about `response_format: auto`; where that is None, the spec has a choice left
    """
    operational, asked = config.operational, config.model.response_format
    spec = CallSpec(
        template=RequestTemplate.build(request_fields(config, decided or AnswerFormat.OFF)),
        retry=RetryPolicy(attempts=operational.max_attempts),
        attempt_deadline_s=operational.attempt_deadline_s,
        second_try=config.model.second_try,
    )
    return spec if asked != AUTO or decided is not None else replace(spec, choice=_format_choice(config))


def _format_choice(config: ExperimentConfig) -> FormatChoice:
    return FormatChoice(
        templates={wanted: RequestTemplate.build(request_fields(config, wanted)) for wanted in AnswerFormat},
        probes={wanted: bound_probe_bodies(request_fields(config), probe_format(wanted)) for wanted in AnswerFormat},
    )


def request_fields(config: ExperimentConfig, decided: AnswerFormat = AnswerFormat.OFF) -> RequestFields:
    """What the requests of an experiment have in common.

    :param decided: what `response_format: auto` stands for
    """
    model = config.model
    return RequestFields(
        model=model.name,
        system_prompt=config.prompt.system_prompt,
        user_template=config.prompt.user_template,
        temperature=model.temperature,
        max_tokens=model.max_tokens,
        max_completion_tokens=model.max_completion_tokens,
        seed=model.seed,
        top_p=model.top_p,
        reasoning_effort=model.reasoning_effort,
        response_format=_format_field(model.response_format, decided),
        further=model.body,
    )


def _format_field(asked: str | Mapping[str, object] | None, decided: AnswerFormat) -> Mapping[str, object] | None:
    if not isinstance(asked, str):
        return asked  # as it was written, or nothing
    return response_format(decided if asked == AUTO else AnswerFormat(asked))
