"""What a simulated batch does with its requests: looks at the file, answers each as a live call, writes the lines."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from narrun_async.simulation.answers import answer_for, completion
from narrun_async.simulation.batch_behaviour import BatchBehaviour
from narrun_async.simulation.behaviour import Behaviour, Fault
from narrun_async.simulation.calls import HTTP_ERRORS
from narrun_async.simulation.chat import RefusedError, parse_chat
from narrun_async.simulation.faults import draws_of, fault_for, text_digest

MAX_REQUESTS = 50_000
#: faults of a connection, which nobody has here
_AS_SERVER_ERROR = frozenset({Fault.TIMEOUT, Fault.RESET})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequestLine:
    """One request of a batch file."""

    custom_id: str
    body: bytes = field(repr=False)


class InvalidFileError(Exception):
    """A file that no batch can be made of."""

    def __init__(self, code: str, line: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.line = line


def read_requests(content: bytes, *, endpoint: str) -> list[BatchRequestLine]:
    """:raises InvalidFileError: as the real one refuses"""
    requests: list[BatchRequestLine] = []
    seen: set[str] = set()
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            asked = json.loads(line)
            custom_id, body = asked["custom_id"], asked["body"]
        except (ValueError, TypeError, KeyError):
            raise InvalidFileError("invalid_json_line", number) from None
        if asked.get("url") != endpoint or asked.get("method") != "POST":
            raise InvalidFileError("mismatched_url", number)
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= 64:
            raise InvalidFileError("invalid_custom_id", number)
        if custom_id in seen:
            raise InvalidFileError("duplicate_custom_id", number)
        seen.add(custom_id)
        requests.append(BatchRequestLine(custom_id=custom_id, body=json.dumps(body).encode()))
    if not requests:
        raise InvalidFileError("empty_file")
    if len(requests) > MAX_REQUESTS:
        raise InvalidFileError("too_many_tasks")
    return requests


def answer_request(behaviour: Behaviour, body: bytes, *, attempt: int, created: int) -> tuple[int, bytes]:
    """The status and body that a live call would have got, on its `attempt`th try."""
    try:
        chat = parse_chat(behaviour, body)
    except RefusedError as refused:
        return refused.status, refused.body
    digest = text_digest(behaviour.seed, chat.text)
    fault = fault_for(behaviour, text=chat.text, digest=digest, attempt=attempt)
    if fault in _AS_SERVER_ERROR:
        fault = Fault.HTTP_500
    if fault in HTTP_ERRORS:
        return HTTP_ERRORS[fault]
    return 200, completion(
        answer_for(chat.text, draws_of(digest), flip_rate=behaviour.flip_rate, fault=fault),
        call_id=f"chatcmpl-{digest[:8].hex()}-{attempt}",
        created=created,
        model=behaviour.model_name,
        prompt_chars=chat.prompt_chars,
        n_messages=chat.n_messages,
    )


def output_line(custom_id: str, *, status: int, body: bytes) -> bytes:
    """An answer, good or bad, as one line."""
    response = {"status_code": status, "request_id": f"req-{custom_id}", "body": json.loads(body)}
    return _line({"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": None})


def unanswered_line(custom_id: str, *, code: str) -> bytes:
    """A request that the batch did not get to."""
    error = {"code": code, "message": "Simulated: this request was not executed."}
    return _line({"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": error})


def arranged(lines: Sequence[bytes], behaviour: BatchBehaviour, *, seed: int) -> bytes:
    """The lines as one file, in the order and with the oddities that the behaviour asks for."""
    listed = list(lines)
    if behaviour.shuffled:
        random.Random(seed).shuffle(listed)
    if behaviour.odd_lines and listed:
        listed += _odd_lines(listed[0])
    return b"".join(listed)


def _odd_lines(line: bytes) -> Iterator[bytes]:
    yield line
    yield unanswered_line("made-up-by-nobody", code="batch_expired")
    yield b'{"custom_id": "cut sho\n'


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
