"""Turns the mapping that a YAML file holds into settings: environment, flags, prompt files, then strict types.

Whatever is wrong becomes one sentence that names the file and the dotted keys, and shows no value of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import ValidationError

from narrun_async.config.complaints import MAX_COMPLAINTS, complaint_about
from narrun_async.config.sections import (
    PLACEHOLDER,
    ExperimentConfig,
    FrozenSections,
    OperationalSettings,
    ProviderKind,
    RunSection,
    provider_kind_of,
)
from narrun_async.config.urls import DEPLOYMENTS, VARIABLE
from narrun_async.errors import ConfigurationError

#: keys of the predecessor, and what became of each
LEGACY_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "save_incremental": "every row is saved as soon as its answer is there",
        "batch_size": "rows are committed in small groups by themselves",
        "resume_enabled": "every run can be resumed",
        "progress_tracking": "progress is always tracked",
    }
)

#: settings in which `${NAME}` stands for a variable of the environment, filled in anew for each run
FILLED_IN = ("model.api_url", "model.headers", "model.query", "model.api_key_file")
PROMPTS = ("prompt.system_prompt", "prompt.user_template")
#: what does for a setting what a variable did for the predecessor
INSTEAD_OF_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "model.name": "set LLM_MODEL, or write the model's name itself",
        "run.database": "set EXPERIMENTS_DB, or write the file's name itself",
        "run.experiment_id": "take the key out, and set EXPERIMENT_ID",
        "run.max_narratives": "take the key out, and give `--max-narratives`",
        "run.concurrency": "take the key out, and give `--concurrency`",
        "model.api_key_env": "write the variable's name without `${}`",
    }
)

NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})
NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class RunDocument(RunSection, OperationalSettings):
    """The `run` section as it is written: frozen, operational and legacy keys in one place."""

    save_incremental: object = None
    batch_size: object = None
    resume_enabled: object = None
    progress_tracking: object = None


class Document(FrozenSections):
    """A whole YAML file, prompt texts already read."""

    run: RunDocument


def parse_config(
    raw: Mapping[str, object],
    *,
    read_text: Callable[[str], str],
    origin: str,
    environment: Mapping[str, str],
    overrides: Mapping[str, object] = NO_OVERRIDES,
) -> ExperimentConfig:
    """The settings of one YAML file. Precedence: override (a flag) > environment > file > default.

    :param read_text: reads a prompt file, named as the YAML names it
    :param origin: the file's name, for messages
    :param overrides: dotted key → value, such as `{"run.max_narratives": 50}`
    :raises ConfigurationError: anything is missing, unknown, of the wrong type or contradictory
    """
    document = apply_environment(raw, environment)
    document = _with_overrides(document, overrides)
    _refuse_variables(document, origin)
    document = _with_prompt_texts(document, read_text, origin)
    document = _with_present_defaults(document)
    try:
        parsed = Document.model_validate(document)
    except ValidationError as error:
        # not chained: the validation error holds the prompts
        raise ConfigurationError(complaint_about(error, known=Document, origin=origin)) from None
    return _split(parsed)


def apply_environment(raw: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
    """A copy of the document in which LLM_API_URL, LLM_MODEL, OPENAI_BASE_URL and EXPERIMENTS_DB have had their say.

    OPENAI_BASE_URL counts only where neither LLM_API_URL nor the file gives an address. A simulated model keeps its
    name and has no address, so that a simulation never passes for a real run.
    """
    document: dict[str, object] = {
        name: dict(section) if isinstance(section, Mapping) else section for name, section in raw.items()
    }
    run, model = document.get("run"), document.get("model")
    if isinstance(run, dict) and environment.get("EXPERIMENTS_DB"):
        run["database"] = environment["EXPERIMENTS_DB"]
    if isinstance(model, dict) and not _is_simulated(document):
        if environment.get("LLM_MODEL"):
            model["name"] = environment["LLM_MODEL"]
        if environment.get("LLM_API_URL"):
            model["api_url"] = environment["LLM_API_URL"]
        elif environment.get("OPENAI_BASE_URL") and model.get("api_url") is None:
            model["api_url"] = environment["OPENAI_BASE_URL"]
    return document


def variables_out_of_place(document: Mapping[str, object]) -> dict[str, list[str]]:
    """Dotted key → the `${NAME}`s in it, for the settings in which none is filled in; prompts are sent as they are."""
    found: dict[str, list[str]] = {}
    for section, settings in document.items():
        for key, value in settings.items() if isinstance(settings, Mapping) else ():
            dotted = f"{section}.{key}"
            if dotted not in FILLED_IN and dotted not in PROMPTS and (names := _variables_in(value)):
                found[dotted] = [*dict.fromkeys(names)]
    return found


def _variables_in(value: object) -> list[str]:
    if isinstance(value, str):
        return VARIABLE.findall(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [name for one in inner for name in _variables_in(one)]


def _refuse_variables(document: Mapping[str, object], origin: str) -> None:
    """:raises ConfigurationError: a `${NAME}` stands where the predecessor would have filled it in, and we do not"""
    found = variables_out_of_place(document)
    if not found:
        return
    uses = [f"`{key}` uses {', '.join(f'${{{name}}}' for name in names)}" for key, names in found.items()]
    advice = dict.fromkeys(INSTEAD_OF_VARIABLES.get(key, "write the value itself") for key in found)
    raise ConfigurationError(
        f"{origin}: {'; '.join(uses[:MAX_COMPLAINTS])}, and variables are filled in only in "
        f"{', '.join(f'`{key}`' for key in FILLED_IN)}",
        advice="; ".join([*advice][:MAX_COMPLAINTS]),
    )


def notices(config: ExperimentConfig, environment: Mapping[str, str] = NO_ENVIRONMENT) -> tuple[str, ...]:
    """What a person should know though nothing is wrong, one sentence each."""
    found = [f"`run.{key}` has no effect: {LEGACY_KEYS[key]}" for key in config.ignored_keys]
    for key, text in (
        ("system_prompt", config.prompt.system_prompt or ""),
        ("user_template", config.prompt.user_template),
    ):
        if "${" in text:
            found.append(
                f"`prompt.{key}` contains `${{`; prompts are sent as they are (the R pipeline filled variables in)"
            )
    found += _request_notices(config)
    if PLACEHOLDER in (config.prompt.system_prompt or ""):
        found.append(f"`prompt.system_prompt` contains {PLACEHOLDER}; the narrative goes into `user_template` only")
    return (*found, *_environment_notices(config, environment))


def _request_notices(config: ExperimentConfig) -> list[str]:
    model, prompt = config.model, config.prompt
    found = []
    asked = model.response_format
    kind = asked.get("type") if isinstance(asked, dict) else asked
    if kind in ("auto", "json_object") and "json" not in f"{prompt.system_prompt} {prompt.user_template}".casefold():
        found.append("the prompts do not speak of JSON; OpenAI and Azure then refuse `response_format` json_object")
    url = model.api_url or ""
    if (DEPLOYMENTS in url or ".azure.com" in url) and not model.is_azure and model.api_key_header is None:
        found.append(
            "`model.api_url` looks like Azure, which wants the key in a header `api-key`: write `provider: azure`, or "
            "`api_key_header: bearer` if this is meant"
        )
    return found


def _environment_notices(config: ExperimentConfig, environment: Mapping[str, str]) -> list[str]:
    simulated = config.model.provider_kind is ProviderKind.SIMULATED
    found = []
    for variable, key, value in (
        ("LLM_API_URL", "model.api_url", config.model.api_url),
        ("LLM_MODEL", "model.name", config.model.name),
    ):
        if not environment.get(variable):
            continue
        if simulated:
            found.append(f"{variable} is set and has no effect on a simulated model")
        elif environment[variable] == value:
            found.append(f"`{key}` comes from {variable}")
    return found


def _is_simulated(document: Mapping[str, object]) -> bool:
    model = document.get("model")
    provider = model.get("provider") if isinstance(model, Mapping) else None
    return isinstance(provider, str) and provider_kind_of(provider) is ProviderKind.SIMULATED


def _with_overrides(document: dict[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    for dotted, value in overrides.items():
        section_name, _, key = dotted.partition(".")
        section = document.setdefault(section_name, {})
        if isinstance(section, dict):
            section[key] = value
    return document


def _with_present_defaults(document: dict[str, object]) -> dict[str, object]:
    """What a file that does not say means, where a snapshot that does not say means something else."""
    if _is_simulated(document) and "simulation" not in document:
        document["simulation"] = {}
    model = document.get("model")
    if isinstance(model, dict):
        model.setdefault("second_try", True)
    return document


def _with_prompt_texts(document: dict[str, object], read_text: Callable[[str], str], origin: str) -> dict[str, object]:
    prompt = document.get("prompt")
    if not isinstance(prompt, dict):
        return document
    for key in ("system_prompt", "user_template"):
        file_key = f"{key}_file"
        path = prompt.pop(file_key, None)
        if path is None:
            continue
        if prompt.get(key) is not None:
            raise ConfigurationError(
                f"{origin}: `prompt.{key}` and `prompt.{file_key}` contradict each other", advice="keep one of them"
            )
        if not isinstance(path, str) or not path.strip():
            raise ConfigurationError(f"{origin}: `prompt.{file_key}` must be the name of a file")
        try:
            prompt[key] = read_text(path)
        except ConfigurationError as error:
            raise ConfigurationError(f"{origin}: `prompt.{file_key}`: {error.problem}", advice=error.advice) from error
    return document


def _split(parsed: Document) -> ExperimentConfig:
    written = parsed.run
    return ExperimentConfig(
        experiment=parsed.experiment,
        model=parsed.model,
        prompt=parsed.prompt,
        data=parsed.data,
        run=RunSection(**{name: getattr(written, name) for name in RunSection.model_fields}),
        privacy=parsed.privacy,
        simulation=parsed.simulation,
        operational=OperationalSettings(**{name: getattr(written, name) for name in OperationalSettings.model_fields}),
        ignored_keys=tuple(key for key in LEGACY_KEYS if key in written.model_fields_set),
    )
