"""Owns the settings themselves: every key, its type, its limits and its default; knows nothing of YAML or databases.

`FrozenSections` are the half that is stored as the snapshot, `OperationalSettings` the other one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from narrun_async.config.request_options import (
    BEARER,
    BodyFields,
    HeaderFields,
    KeyHeader,
    QueryFields,
    ReasoningEffort,
    ResponseFormat,
)
from narrun_async.config.urls import VARIABLE, check_api_url, lacks_api_version
from narrun_async.config.values import Line, ProseText, Text

#: where the narrative goes in the user template
PLACEHOLDER = "<<TEXT>>"
#: a million seconds is eleven days: beyond it a duration is a slip of the keyboard
MAX_DURATION_S = 1_000_000
#: of tokens, narratives, errors: beyond it a count is a slip of the keyboard
MAX_COUNT = 1_000_000_000
#: the concurrency that the controller finds
AUTO = "auto"
#: calls in flight beyond this exhaust descriptors before they help anybody
MAX_CONCURRENCY = 4096

#: SQLite, and most servers, keep seeds in a signed 64-bit integer
MAX_SEED = 2**63 - 1


def _with_placeholder(value: str) -> str:
    if PLACEHOLDER not in value:
        raise ValueError(f"must contain {PLACEHOLDER}, the place where the narrative goes")
    return value


def _experiment_id(value: str) -> str:
    hexadecimal = 8 <= len(value) <= 36 and set(value.lower()) <= set("0123456789abcdef-")
    if not (value == "latest" or hexadecimal):
        raise ValueError("must be an experiment id, at least the first 8 characters of one, or `latest`")
    return value


def _number_or_auto(value: object) -> object:
    is_number = type(value) is int and 1 <= value <= MAX_CONCURRENCY
    if not is_number and value != AUTO:
        raise ValueError(f"must be a whole number from 1 to {MAX_CONCURRENCY:,}, or `auto`")
    return value


#: calls in flight, or `auto`
Concurrency = Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)]
TemplateText = Annotated[Text, AfterValidator(_with_placeholder)]
ApiUrl = Annotated[str, AfterValidator(check_api_url)]
ExperimentReference = Annotated[str, AfterValidator(_experiment_id)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Rate = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Section(BaseModel):
    """Strict types, no unknown keys, no NaN, immutable, and errors that do not show what was given."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


class ProviderKind(StrEnum):
    """How the endpoint is reached; `model.provider` is what the person called it."""

    OPENAI_COMPATIBLE = "openai-compatible"
    SIMULATED = "simulated"


#: names of servers that speak the OpenAI chat completions protocol, letters and digits only
_OPENAI_COMPATIBLE_NAMES = frozenset(
    {
        "openaicompatible", "openai", "lmstudio", "vllm", "ollama", "llamacpp", "llamaserver", "localai", "sglang",
        "tgi", "mlx", "mlxlm", "jan", "litellm", "openrouter", "together", "groq", "azure", "azureopenai", "local",
        "custom",
    }
)  # fmt: skip


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def provider_kind_of(provider: str) -> ProviderKind | None:
    """The kind that a name stands for, however it is cased and punctuated; None for an unknown one."""
    letters = _letters(provider)
    if letters == "simulated":
        return ProviderKind.SIMULATED
    return ProviderKind.OPENAI_COMPATIBLE if letters in _OPENAI_COMPATIBLE_NAMES else None


def _known_provider(value: str) -> str:
    if provider_kind_of(value) is None:
        raise ValueError(
            "must be `openai-compatible` (right for every server with /v1/chat/completions; names such as lmstudio, "
            "vllm, ollama and openai mean the same) or `simulated`"
        )
    return value


class ExperimentSection(Section):
    """Who asks, and under which name."""

    name: Line
    author: Line | None = None
    notes: Text | None = None


class ModelSection(Section):
    """The endpoint and the parameters that every request carries."""

    name: Line
    #: as written; stored in `experiments.model_provider`
    provider: Annotated[Line, AfterValidator(_known_provider)]
    #: with `${NAME}` unexpanded; None only for the simulated endpoint
    api_url: ApiUrl | None = None
    temperature: float = Field(ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    #: the name that newer OpenAI models want instead; at most one of the two is sent
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    #: a word that the server knows; it is passed on
    reasoning_effort: ReasoningEffort | None = None
    #: sent with every request; `run.seed` is not
    seed: Seed | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    #: an answer that cannot be used is asked for once more, with something changed. A file that does not say means true
    #: (`documents`); a snapshot that does not say is of before there was a second try
    second_try: bool = False
    #: how the server binds its answers to JSON: a mode, or a mapping that is sent as it is; None: it is not asked to
    response_format: ResponseFormat = None
    #: further header fields and query parameters, with `${NAME}` unexpanded
    headers: HeaderFields = Field(default_factory=dict)
    query: QueryFields = Field(default_factory=dict)
    #: further fields of the request body
    body: BodyFields = Field(default_factory=dict)
    #: the variable that holds the key, which must then be set; None: OPENAI_API_KEY if there is one
    api_key_env: VariableName | None = None
    api_key_file: Line | None = None
    #: `bearer`, or the header that carries the key as it is; None: `api-key` for Azure, else `bearer`
    api_key_header: KeyHeader | None = None

    @property
    def provider_kind(self) -> ProviderKind:
        return provider_kind_of(self.provider) or ProviderKind.OPENAI_COMPATIBLE

    @property
    def is_azure(self) -> bool:
        return _letters(self.provider).startswith("azure")

    @property
    def key_header(self) -> str:
        """Where the key goes: `bearer`, or a header's name."""
        return self.api_key_header or ("api-key" if self.is_azure else BEARER)

    @model_validator(mode="after")
    def _endpoint_is_complete(self) -> Self:
        simulated = self.provider_kind is ProviderKind.SIMULATED
        if simulated and self.api_url is not None:
            raise ValueError(
                "`api_url` has no place beside provider simulated, whose endpoint the program starts itself; "
                "write `provider: openai-compatible` to use a running one"
            )
        if not simulated and self.api_url is None:
            raise ValueError("`api_url` is missing; write it, or set LLM_API_URL")
        return self

    @model_validator(mode="after")
    def _nothing_is_said_twice(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("`api_key_env` and `api_key_file` contradict each other; keep one of them")
        if self.key_header.lower() in {name.lower() for name in self.headers}:
            raise ValueError(f"`headers` must not set `{self.key_header}`, which carries the key")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError(
                "`max_tokens` and `max_completion_tokens` are two names of one limit; keep the one that the server "
                "takes (newer OpenAI models take the latter only)"
            )
        for name, _ in parse_qsl(urlsplit(self._address()).query, keep_blank_values=True):
            if name in self.query:
                raise ValueError(f"`{name}` stands in `api_url` and in `query`; keep one of them")
        return self

    @model_validator(mode="after")
    def _azure_has_its_version(self) -> Self:
        if lacks_api_version(self._address(), self.query):
            raise ValueError(
                "`api_url` is an Azure deployment, which needs an `api-version`; add `?api-version=2024-10-21` to it, "
                "or write it under `query`, or use the form that ends in `/openai/v1`"
            )
        return self

    def _address(self) -> str:
        """What can be said of the URL before its variables are known."""
        return VARIABLE.sub("1", self.api_url or "")


class PromptSection(Section):
    """The prompt texts themselves, also where the YAML names files."""

    version: Line
    author: Line | None = None
    #: None: no system message is sent
    system_prompt: ProseText | None = Field(default=None, repr=False)
    user_template: TemplateText = Field(repr=False)


class DataSection(Section):
    """Where the narratives come from, and how doubtful rows of it are taken."""

    #: as written; relative to the working directory
    file: Line
    sheet: Line | None = None
    on_conflict: Literal["error", "first"] = "error"
    skip_blank_ids: bool = False
    #: what a placeholder is, relative to the working directory; None: the rules that come with the program
    placeholder_rules: Line | None = None


class RunSection(Section):
    """What is frozen of `run`: the cohort's size, what of it is asked, and the recorded seed."""

    seed: Seed | None = None
    #: None: all narratives of the data source
    max_narratives: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    #: placeholders get a row that says so, and no call
    skip_placeholders: bool = False
    #: of narratives with the same text the first is asked, the others get its answer
    ask_identical_once: bool = False


class PrivacySection(Section):
    """Whether narratives may leave loopback and private addresses."""

    allow_remote: bool = False
    #: who allowed it and on what ground; stored with the experiment
    approval_note: ProseText | None = None

    @model_validator(mode="after")
    def _remote_is_approved(self) -> Self:
        if self.allow_remote and self.approval_note is None:
            raise ValueError("`approval_note` is missing; with `allow_remote: true` it says who approved that, and why")
        return self


FaultName = Literal[
    "http_400", "http_429", "http_500", "http_503", "timeout", "reset", "malformed", "truncated", "refusal"
]  # fmt: skip


class SimulationSection(Section):
    """The simulated endpoint: its pace, its faults and its mistakes, named as the endpoint names them."""

    seed: Seed = 0
    #: fixed: every request takes its own time; slots: the rest queue; batching: all slow each other down
    latency_model: Literal["fixed", "slots", "batching"] = "fixed"
    #: mean time of an answer
    latency_ms: float = Field(default=200.0, ge=0, le=600_000)
    #: 0: always the same; 0.5: between half and one and a half of `latency_ms`
    latency_spread: Rate = 0.2
    #: requests served at a time in the slots model
    slots: int = Field(default=4, ge=1, le=MAX_COUNT)
    #: batching model: each further request in flight adds this share of the latency
    batch_slowdown: float = Field(default=0.02, ge=0)
    #: requests beyond this rate get 429; None: no limit
    requests_per_s: float | None = Field(default=None, gt=0)
    #: what 429 and 503 answers ask for; None: they do not say
    retry_after_s: float | None = Field(default=1.0, ge=0)
    #: fault → share of the calls, or of the narratives, that meet it
    fault_rates: dict[FaultName, Rate] = Field(default_factory=dict)
    #: share of the malformed answers that a second try mends
    mend_rate: Rate = 0.0
    #: truncated answers come whole where the request allows so many tokens; None: they never do
    enough_tokens: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    #: share of narratives whose answer is turned into its opposite
    flip_rate: Rate = 0.03


class PricesSection(Section):
    """What a million tokens cost, in any one currency."""

    prompt_per_million: float = Field(ge=0)
    completion_per_million: float = Field(ge=0)


class OperationalSettings(Section):
    """How a run works; may change from run to run and is never part of the snapshot."""

    #: calls in flight; `auto`: as many as the endpoint serves fastest
    concurrency: Concurrency = "auto"
    #: what `auto` may go up to
    max_concurrency: int = Field(default=64, ge=1, le=MAX_CONCURRENCY)
    #: requests a minute; None: no limit
    rpm: float | None = Field(default=None, gt=0)
    #: tokens a minute, prompt and completion together; None: no limit
    tpm: float | None = Field(default=None, gt=0)
    #: tokens that the experiment may use, all runs together
    max_tokens_total: int | None = Field(default=None, ge=1)
    #: what the experiment may cost, all runs together, in the currency of `prices`
    max_cost: float | None = Field(default=None, gt=0)
    prices: PricesSection | None = None
    #: total time of one attempt, body included
    attempt_deadline_s: float = Field(default=120.0, gt=0, le=MAX_DURATION_S)
    #: attempts at one narrative per pass
    max_attempts: int = Field(default=5, ge=1, le=1000)
    #: times that the planner meets a narrative whose attempts all failed
    max_passes: int = Field(default=3, ge=1, le=1000)
    #: how long the run waits for a sick endpoint
    max_wait_s: float = Field(default=3600.0, ge=0, le=MAX_DURATION_S)
    #: how long the run waits for a disk that is full, or a database that another program locks
    max_storage_wait_s: float = Field(default=300.0, ge=0, le=MAX_DURATION_S)
    #: identical error categories in a row that stop the run
    max_consecutive_errors: int = Field(default=50, ge=1, le=MAX_COUNT)
    #: narratives that the planner reads at once
    page_size: int = Field(default=500, ge=1, le=100_000)
    #: another model, fingerprint or server in the answers than before
    on_model_change: Literal["warn", "stop"] = "warn"
    #: narratives that are asked again in mid-run, to see whether the endpoint still answers alike
    canaries: int = Field(default=0, ge=0, le=1000)
    #: narratives between two rounds of canaries
    canary_every: int = Field(default=500, ge=1, le=MAX_COUNT)
    save_csv_json: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    database: Line = "data/experiments.db"
    resume: bool = False
    experiment_id: ExperimentReference | None = None
    retry_errors_only: bool = False

    @model_validator(mode="after")
    def _cost_has_prices(self) -> Self:
        if self.max_cost is not None and self.prices is None:
            raise ValueError("`max_cost` needs `prices` with `prompt_per_million` and `completion_per_million`")
        return self


class FrozenSections(Section):
    """What makes an experiment this experiment: exactly this is the snapshot."""

    experiment: ExperimentSection
    model: ModelSection
    prompt: PromptSection
    data: DataSection
    run: RunSection
    privacy: PrivacySection = PrivacySection()
    #: present exactly when the provider is simulated
    simulation: SimulationSection | None = None

    @model_validator(mode="after")
    def _simulation_fits_provider(self) -> Self:
        if self.simulation is not None and self.model.provider_kind is not ProviderKind.SIMULATED:
            raise ValueError("section `simulation` belongs to `provider: simulated` only; remove it")
        return self


class ExperimentConfig(FrozenSections):
    """One configuration: the frozen sections, and beside them what may change from run to run."""

    operational: OperationalSettings = OperationalSettings()
    #: keys of the predecessor that were given and have no effect
    ignored_keys: tuple[str, ...] = ()
