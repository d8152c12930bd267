"""Builds the endpoint of a run: a real one by its URL, or the simulated one, which lives as long as the run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from narrun_async.caller import CallSpec
from narrun_async.config import ExperimentConfig, ProviderKind, SimulationSection, expand_url, resolve_api_key
from narrun_async.errors import UsageError
from narrun_async.ports import BatchProvider, ChatProvider
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
    url, key = _resolve(config, environment, api_url)
    provider = OpenAIBatchProvider(url=url, api_key=key, allow_remote=config.privacy.allow_remote)
    try:
        yield provider, url
    finally:
        await provider.aclose()


async def _start_simulation(section: SimulationSection, open_until_end: AsyncExitStack) -> str:
    from narrun_async.simulation.behaviour import Behaviour
    from narrun_async.simulation.endpoint import SimulatedEndpoint

    endpoint = await open_until_end.enter_async_context(SimulatedEndpoint(Behaviour(**section.model_dump())))
    return endpoint.url


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
        second_try=model.second_try,
    )
