"""Decides what the facts about a database and the answer to a probe mean, and what to do about each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.answer_format import obeys
from narrun_async.errors import ExitCode
from narrun_async.models import AnswerFormat, Envelope
from narrun_async.reporting.diagnosis import Diagnosis, fine, notice, wrong
from narrun_async.reporting.wording import duration_text
from narrun_async.retrying import CallFailure, FailureClass
from narrun_async.stores.sqlite.condition import DatabaseCondition

DATABASE, CONFIGURATION, ENDPOINT = "database", "configuration", "endpoint"

#: the first SQLite without the rare corruption when two connections reset the WAL at once
SOUND_SQLITE = (3, 51, 3)
#: some 10 kB a narrative, twice over while the WAL is written back
SCARCE_BYTES = 1024**3
TOO_SCARCE_BYTES = 64 * 1024**2


def judge_database(found: DatabaseCondition) -> Sequence[Diagnosis]:
    """What the condition of a database means for a run."""
    diagnoses = [_contents(found)]
    if found.damage:
        diagnoses.append(
            _bad(f"{found.path} is damaged: {'; '.join(found.damage)}", "restore it from a backup; do not write to it")
        )
    for file, mode in found.open_files.items():
        diagnoses.append(_bad(f"{file} has mode {mode:04o}: others may read it", f"chmod 600 '{file}'"))
    if found.directory_mode is not None and found.directory_mode & 0o077:
        directory = found.path.resolve().parent
        diagnoses.append(
            notice(
                DATABASE,
                f"its directory has mode {found.directory_mode:04o}: others may see which files there are",
                f"chmod 700 '{directory}', if nothing else is in it",
            )
        )
    if not found.is_writable:
        diagnoses.append(_bad("the file or its directory cannot be written", "make both writable for this user"))
    if found.is_on_network:
        diagnoses.append(
            _bad(
                f"it lies on a network file system ({found.file_system}), where SQLite's locks and WAL are not safe",
                "put the database on a local disk",
            )
        )
    if found.holder is not None:
        diagnoses.append(notice(DATABASE, f"in use by {found.holder}", "looking is safe; another run has to wait"))
    return [*diagnoses, *_surroundings(found)]


def _contents(found: DatabaseCondition) -> Diagnosis:
    if found.problem is not None:
        return _bad(found.problem.problem, found.problem.advice)
    if not found.exists:
        return notice(DATABASE, f"{found.path} does not exist yet", "the first run or ingest makes it")
    size = f"{found.path}: {found.size_bytes / 1e6:,.1f} MB"
    if found.schema_version is None:
        return notice(DATABASE, f"{size}, and it holds no tables", "the first run or ingest makes them")
    if found.schema_version < found.known_schema_version:
        return notice(
            DATABASE,
            f"{size}, schema {found.schema_version} of {found.known_schema_version}",
            "`narrun migrate`, or the next run, brings it up to date after a backup",
        )
    state = "integrity_check found damage" if found.damage else "integrity_check ok"
    return fine(DATABASE, f"{size}, schema {found.schema_version}, {state}")


def _surroundings(found: DatabaseCondition) -> list[Diagnosis]:
    diagnoses = []
    if found.sqlite_version < SOUND_SQLITE:
        diagnoses.append(
            notice(
                DATABASE,
                f"SQLite {_dotted(found.sqlite_version)} has a rare fault when two programs write to one database",
                f"never open it for writing beside a run; from {_dotted(SOUND_SQLITE)} on the fault is gone",
            )
        )
    if found.free_bytes is not None:
        free = f"{found.free_bytes / 1e9:,.1f} GB free on its disk"
        if found.free_bytes < TOO_SCARCE_BYTES:
            diagnoses.append(_bad(free, "make room; a run pauses when the disk is full"))
        elif found.free_bytes < SCARCE_BYTES:
            diagnoses.append(notice(DATABASE, free, "some 10 kB a narrative are needed, twice"))
        else:
            diagnoses.append(fine(DATABASE, free))
    return diagnoses


def judge_probe(result: Envelope | CallFailure, *, model: str, latency_s: float) -> Sequence[Diagnosis]:
    """What the one call means that the doctor makes."""
    took = duration_text(latency_s)
    if isinstance(result, CallFailure):
        return [_judge_failure(result, took)]
    diagnoses = [fine(ENDPOINT, f"answered a request for one token in {took}")]
    if result.model is not None and result.model != model:
        diagnoses.append(
            notice(
                ENDPOINT,
                f"asked for the model {model}, answered by one that calls itself {result.model}",
                "many servers answer with whatever model they have loaded; check that it is the right one",
            )
        )
    return diagnoses


def answers_requests(result: Envelope | CallFailure) -> bool:
    """Whether there is something at the endpoint that reads requests, if not this one."""
    return not isinstance(result, CallFailure) or result.failure_class is FailureClass.PERMANENT


def judge_structured(wanted: AnswerFormat, result: Envelope | CallFailure, *, is_asked_for: bool) -> Diagnosis:
    """What the answer to a question with that `response_format` means.

    :param is_asked_for: the configuration sends it with every narrative
    """
    if isinstance(result, CallFailure):
        if result.failure_class is not FailureClass.PERMANENT:
            return notice(ENDPOINT, f"structured output: {wanted} cannot be told: {result.message}")
        sentence = f"structured output: {wanted} is refused: {result.message}"
        if is_asked_for:
            advice = "take `model.response_format` out, give the form that this server knows, or let `auto` find it"
            return wrong(ENDPOINT, sentence, advice, exit_code=ExitCode.CONFIGURATION)
        return notice(ENDPOINT, sentence, "do not ask for it in `model.response_format`")
    if obeys(wanted, result):
        return fine(ENDPOINT, f"structured output: {wanted} is supported")
    if result.finish_reason == "length":
        return notice(ENDPOINT, f"structured output: {wanted} cannot be told: the answer was cut short")
    advice = "do not rely on it: answers that are no JSON become error rows"
    return notice(ENDPOINT, f"structured output: {wanted} is accepted and ignored", advice)


def judge_choice(results: Mapping[AnswerFormat, Envelope | CallFailure]) -> Diagnosis:
    """What `response_format: auto` would come to with these answers."""
    for wanted, result in results.items():
        if isinstance(result, CallFailure):
            if not answers_requests(result):
                return notice(ENDPOINT, "`response_format: auto` would ask again until the endpoint is well")
        elif obeys(wanted, result):
            return fine(ENDPOINT, f"`response_format: auto` would ask for {wanted}")
    return notice(ENDPOINT, "`response_format: auto` would ask for nothing", "the parser takes JSON out of prose, too")


def _judge_failure(failure: CallFailure, took: str) -> Diagnosis:
    # The doctor's requests hold no narrative, so what the endpoint says of them may be shown.
    said = failure.message + (f"; it says: {failure.quoted}" if failure.quoted else "")
    match failure.failure_class:
        case FailureClass.FATAL:
            return wrong(ENDPOINT, said, _fatal_advice(failure.http_status), exit_code=ExitCode.CONFIGURATION)
        case FailureClass.UNREACHABLE:
            advice = "start the server, or correct `model.api_url`; a run would wait for it (--max-wait)"
            return wrong(ENDPOINT, said, advice, exit_code=ExitCode.TEMPORARY)
        case FailureClass.OVERLOAD:
            advice = "wait; a run waits as long as it is asked to, and slows down by itself"
            return wrong(ENDPOINT, f"overloaded after {took}: {said}", advice, exit_code=ExitCode.TEMPORARY)
        case FailureClass.TRANSIENT | FailureClass.ANSWER:
            advice = "look at the server's log; the model may still be loading"
            return wrong(ENDPOINT, f"it is there and does not work: {said}", advice, exit_code=ExitCode.TEMPORARY)
        case FailureClass.PERMANENT:
            advice = "a server may want more than one token; `narrun estimate -k 1` sends a real request"
            return notice(ENDPOINT, f"it is there, and refuses the request for one token: {said}", advice)


def _fatal_advice(http_status: int | None) -> str:
    match http_status:
        case 401 | 403:
            return "set the right key in OPENAI_API_KEY, or where `model.api_key_env` or `api_key_file` say"
        case 402 | 429:
            return "see to the account, then try again"
        case 404:
            return "correct `model.name` or `model.api_url`; `GET /v1/models` of the server lists what it has"
        case None:
            return "correct `model.api_url`; a host that is not private needs `privacy.allow_remote`"
        case _:
            return "correct `model.api_url` or `model.name`"


def _bad(sentence: str, advice: str) -> Diagnosis:
    return wrong(DATABASE, sentence, advice, exit_code=ExitCode.STORAGE)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
