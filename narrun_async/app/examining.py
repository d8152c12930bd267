"""`narrun verify` and `narrun doctor`: look at a database, a configuration and an endpoint, and change nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from narrun_async.answer_format import BINDING_FORMATS, probe_format
from narrun_async.app.databases import reading, source_file
from narrun_async.app.endpoints import addresses_of, call_spec, endpoint_url, open_endpoint, request_fields
from narrun_async.app.planning import RunRequest, chosen_database, load_config
from narrun_async.caller import PROBE_DEADLINE_S, ask_once
from narrun_async.config import ExperimentConfig, ProviderKind, notices, resolve_api_key
from narrun_async.config.sections import AUTO
from narrun_async.errors import ExitCode, NarrunError
from narrun_async.operations.diagnosing import (
    CONFIGURATION,
    ENDPOINT,
    answers_requests,
    judge_choice,
    judge_database,
    judge_probe,
    judge_structured,
)
from narrun_async.operations.ingesting import find_known_source
from narrun_async.operations.verification import verify
from narrun_async.ports import ChatProvider
from narrun_async.prompting import bound_probe_bodies
from narrun_async.reporting.diagnosis import (
    Diagnosis,
    diagnosis_lines,
    fine,
    notice,
    overall_exit_code,
    wrong,
)
from narrun_async.reporting.legacy_lines import inheritance_json, inheritance_lines
from narrun_async.reporting.verification_lines import verification_json, verification_lines
from narrun_async.sources.screening_rules import load_rules
from narrun_async.sources.yaml_file import text_reader
from narrun_async.stores.sqlite.condition import examine_database


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What there is to say, and the exit code."""

    lines: Sequence[str]
    exit_code: ExitCode


async def verify_database(database: Path, wanted: str | None, *, as_json: bool) -> Examination:
    """Check every invariant that rows can show; safe beside a run.

    :param wanted: one experiment only
    :raises NarrunError: the database cannot be read, or holds no such experiment
    """
    async with reading(database) as store:
        result = await verify(store, wanted)
    if as_json:
        document = verification_json(result.findings, experiment_id=result.experiment_id)
        document["inherited"] = inheritance_json(result.inheritance, result.odd_ids)
        return Examination(lines=[json.dumps(document, ensure_ascii=False, indent=2)], exit_code=result.exit_code)
    whose = "all experiments" if result.experiment_id is None else f"experiment {result.experiment_id}"
    inherited = inheritance_lines(result.inheritance, result.odd_ids)
    lines = [
        f"{database}: {whose}",
        *([*inherited, ""] if inherited else []),
        *verification_lines(result.findings),
    ]
    return Examination(lines=lines, exit_code=result.exit_code)


async def diagnose(request: RunRequest, environment: Mapping[str, str]) -> Examination:
    """Look at the database, the configuration and the endpoint of a run that was not started."""
    configuration: list[Diagnosis] = []
    config = None
    if request.config_file is None:
        configuration.append(notice(CONFIGURATION, "none was named, so neither it nor an endpoint was looked at"))
    else:
        try:
            config = load_config(request.config_file, environment, {})
        except NarrunError as error:
            configuration.append(_of_error(CONFIGURATION, error))
    database = chosen_database(request, config, environment)
    diagnoses = list(judge_database(await examine_database(database)))
    if config is not None:
        assert request.config_file is not None
        configuration += _judge_config(config, request.config_file, environment)
        configuration.append(await _judge_source(config, database))
        can_call = _can_call(configuration)
        configuration += [] if not can_call else await _judge_address(config, environment)
        diagnoses += configuration
        if _can_call(configuration):
            diagnoses += await _probe(config, environment)
        else:
            diagnoses.append(notice(ENDPOINT, "not called, because of what is wrong above"))
    else:
        diagnoses += configuration
    return Examination(lines=diagnosis_lines(diagnoses), exit_code=overall_exit_code(diagnoses))


def _can_call(diagnoses: Sequence[Diagnosis]) -> bool:
    return not any(one.exit_code is ExitCode.CONFIGURATION for one in diagnoses)


def _judge_config(config: ExperimentConfig, path: Path, environment: Mapping[str, str]) -> list[Diagnosis]:
    """The file, its prompts and its key. That the template has its `<<TEXT>>` was checked when it was read."""
    system = "with" if config.prompt.system_prompt else "without"
    diagnoses = [
        fine(CONFIGURATION, f"{path}: {config.experiment.name}"),
        fine(CONFIGURATION, f"the user template has a place for the narrative, {system} a system prompt"),
        *(notice(CONFIGURATION, sentence) for sentence in notices(config, environment)),
    ]
    if config.data.placeholder_rules is not None:
        try:
            rules = load_rules(Path(config.data.placeholder_rules))
        except NarrunError as error:
            return [*diagnoses, _of_error(CONFIGURATION, error)]
        diagnoses.append(fine(CONFIGURATION, f"{config.data.placeholder_rules}: the rules {rules}"))
    if config.model.provider_kind is ProviderKind.SIMULATED:
        return [*diagnoses, notice(CONFIGURATION, "the endpoint is simulated: its answers mean nothing")]
    try:
        key = resolve_api_key(config.model, environment, read_text=text_reader(Path()))
    except NarrunError as error:
        return [*diagnoses, _of_error(CONFIGURATION, error)]
    if key is None:
        return [
            *diagnoses,
            notice(CONFIGURATION, "no key is set", "many local servers need none; else: OPENAI_API_KEY"),
        ]
    return [*diagnoses, fine(CONFIGURATION, "a key is set")]


async def _judge_source(config: ExperimentConfig, database: Path) -> Diagnosis:
    """Whether the narratives are in the database, or can be read from the file."""
    file = source_file(config.data)
    is_there, known, obstacle = file.path.is_file(), None, ""
    if database.is_file():
        try:
            async with reading(database) as store:
                known = await find_known_source(store, file)
        except NarrunError as error:
            obstacle = error.problem
        except OSError as error:
            advice = "make it readable for this user"
            return wrong(
                CONFIGURATION, f"{file.path} cannot be read ({error.strerror})", advice, exit_code=ExitCode.BAD_DATA
            )
    if known is not None:
        gone = "" if is_there else "; the file itself is gone and not needed"
        return fine(CONFIGURATION, f"{file.path}: the database holds its {known.n_narratives:,} narratives{gone}")
    if is_there:
        return fine(CONFIGURATION, f"{file.path} is there; a run reads it into the database if it is not in it")
    if obstacle:
        sentence = f"{file.path} is gone, and whether the database holds it cannot be told: {obstacle}"
        return notice(CONFIGURATION, sentence)
    return wrong(
        CONFIGURATION,
        f"{file.path}: there is no such file, and the database holds nothing of it",
        "check `data.file`; paths are relative to the directory the program is started in",
        exit_code=ExitCode.BAD_DATA,
    )


async def _judge_address(config: ExperimentConfig, environment: Mapping[str, str]) -> list[Diagnosis]:
    """Whether the egress guard lets the endpoint's addresses through; the guard itself looks again at every dial."""
    if config.model.provider_kind is ProviderKind.SIMULATED:
        return []
    from narrun_async.providers.egress import address_is_allowed

    try:
        url = endpoint_url(config, environment)
    except NarrunError as error:
        return [_of_error(CONFIGURATION, error)]
    host = urlsplit(url).hostname
    try:
        addresses = await addresses_of(url)
    except OSError:
        return []  # the probe says so, and what to do
    allowed = [one for one in addresses if address_is_allowed(one, allow_remote=config.privacy.allow_remote)]
    if not allowed:
        return [
            wrong(
                CONFIGURATION,
                f"{host} is {', '.join(addresses)}; calls may go to this machine and private addresses only",
                "correct `model.api_url`, or set `privacy.allow_remote` and say who approved it",
                exit_code=ExitCode.CONFIGURATION,
            )
        ]
    found = host if [host] == allowed else f"{host} is {', '.join(allowed)}"
    return [fine(CONFIGURATION, f"calls may go to {found}")]


async def _probe(config: ExperimentConfig, environment: Mapping[str, str]) -> Sequence[Diagnosis]:
    """Requests without any narrative; unlike for the health check of a run, the answers must be chat completions."""
    spec = call_spec(config)
    deadline_s = min(spec.attempt_deadline_s, PROBE_DEADLINE_S)
    try:
        async with open_endpoint(config, environment, api_url=None) as endpoint:
            began = time.monotonic()
            result = await ask_once([spec.template.probe_body()], endpoint.provider, deadline_s=deadline_s)
            latency_s = time.monotonic() - began
            structured: list[Diagnosis] = []
            if not endpoint.is_simulated and answers_requests(result):
                structured = await _probe_structured(config, endpoint.provider, deadline_s=deadline_s)
    except NarrunError as error:
        return [_of_error(ENDPOINT, error)]
    where = fine(ENDPOINT, f"{endpoint.url}, model {config.model.name}")
    return [where, *judge_probe(result, model=config.model.name, latency_s=latency_s), *structured]


async def _probe_structured(config: ExperimentConfig, provider: ChatProvider, *, deadline_s: float) -> list[Diagnosis]:
    """Whether the endpoint binds its answers to JSON where it is asked to: a tiny question for each way of asking."""
    asked = config.model.response_format
    asked_for = asked.get("type") if isinstance(asked, dict) else asked
    fields = request_fields(config)
    answers = {
        wanted: await ask_once(bound_probe_bodies(fields, probe_format(wanted)), provider, deadline_s=deadline_s)
        for wanted in BINDING_FORMATS
    }
    diagnoses = [judge_structured(wanted, answers[wanted], is_asked_for=wanted == asked_for) for wanted in answers]
    return [*diagnoses, judge_choice(answers)] if asked_for == AUTO else diagnoses


def _of_error(area: str, error: NarrunError) -> Diagnosis:
    return wrong(area, error.problem, error.advice, exit_code=error.exit_code)
