"""Builds the endpoint of a run: a real one by its URL, or the simulated one, which lives as long as the run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from narrun_async.caller import CallSpec
from narrun_async.config import ExperimentConfig, ProviderKind, SimulationSection, expand_url, resolve_api_key
from narrun_async.errors import ConfigurationError, TemporaryError, UsageError
from narrun_async.ports import ChatProvider
from narrun_async.prompting import RequestFields, RequestTemplate
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
    if config.model.provider_kind is not ProviderKind.SIMULATED:
        _resolve(config, environment, api_url)
    elif api_url is not None:
        raise UsageError("--api-url has no place in a simulated experiment")


def _resolve(config: ExperimentConfig, environment: Mapping[str, str], api_url: str | None) -> tuple[str, str | None]:
    """The URL to dial, and the key."""
    from narrun_async.providers.openai_compatible import completions_url

    url = completions_url(expand_url(api_url or config.model.api_url or "", environment))
    return url, resolve_api_key(config.model, environment, read_text=text_reader(Path()))


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
            url, key = _resolve(config, environment, api_url)
        provider = OpenAICompatibleProvider(url=url, api_key=key, allow_remote=config.privacy.allow_remote)
        open_until_end.push_async_callback(provider.aclose)
        yield Endpoint(
            provider=provider,
            url=url,
            is_simulated=config.model.provider_kind is ProviderKind.SIMULATED,
            is_overridden=api_url is not None,
        )


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
        raise ConfigurationError(
            f"{host} is {', '.join(addresses)}; calls may go to this machine and private addresses only",
            advice="give another address with --api-url, or name a configuration with --config that says"
            " `privacy.allow_remote: true` and who approved it; nothing was changed",
        )


def call_spec(config: ExperimentConfig) -> CallSpec:
    """What every call of an experiment is made of."""
    model = config.model
    fields = RequestFields(
        model=model.name,
        system_prompt=config.prompt.system_prompt,
        user_template=config.prompt.user_template,
        temperature=model.temperature,
        max_tokens=model.max_tokens,
        seed=model.seed,
        top_p=model.top_p,
        response_format=model.response_format,
    )
    return CallSpec(
        template=RequestTemplate.build(fields),
        retry=RetryPolicy(attempts=config.operational.max_attempts),
        attempt_deadline_s=config.operational.attempt_deadline_s,
    )
