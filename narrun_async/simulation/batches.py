"""The Batch API of the simulated endpoint: files and batches in memory, and what was asked how often."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qsl

from narrun_async.simulation.batch_behaviour import BatchBehaviour
from narrun_async.simulation.batch_work import (
    BatchRequestLine,
    InvalidFileError,
    answer_request,
    arranged,
    output_line,
    read_requests,
    unanswered_line,
)
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.chat import RefusedError, require_key
from narrun_async.simulation.http_server import Connection, Request

_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_NAME = re.compile(rb'name="([^"]*)"')
_FILE_NAME = re.compile(rb'filename="([^"]*)"')

#: a JSON object
Object = dict[str, object]


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """A file that somebody uploaded, or that a batch wrote."""

    file_id: str
    name: str
    purpose: str
    content: bytes = field(repr=False)
    #: of the loop's clock, in seconds
    made_at: float


@dataclass(slots=True, kw_only=True)
class StoredBatch:
    """A batch, and what became of it."""

    batch_id: str
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str]
    made_at: float
    requests: Sequence[BatchRequestLine]
    status: str = "in_progress"
    error: InvalidFileError | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    n_completed: int = 0
    n_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """What the Batch API was asked for since it was made."""

    #: batches created, failed ones included
    batches: int
    #: by the token in their metadata
    batches_by_token: Mapping[str, int]
    #: requests in all batches that were accepted
    requests: int
    #: how often the request that came most often came
    max_per_request: int
    #: of files that were uploaded
    uploads: int
    uploads_by_name: Mapping[str, int]
    #: files that are kept now
    files: int


class BatchDesk:
    """Files and batches of one endpoint, for as long as it lives, also while it is down.

    :param behaviour: how the endpoint behaves now: it answers requests of batches as it answers calls
    """

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour
        self.knobs = BatchBehaviour()
        self._files: dict[str, StoredFile] = {}
        self._batches: dict[str, StoredBatch] = {}
        self._n_files = 0
        self._attempts: Counter[bytes] = Counter()
        self._tokens: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._uploads: Counter[str] = Counter()

    def change(self, **changes: object) -> None:
        """Set some knobs anew.

        :raises ValueError: an unknown knob, or a value that makes no sense
        """
        self.knobs = self.knobs.changed(changes)

    def stats(self) -> BatchStats:
        return BatchStats(
            batches=len(self._batches),
            batches_by_token=dict(self._tokens),
            requests=self._requests.total(),
            max_per_request=max(self._requests.values(), default=0),
            uploads=self._uploads.total(),
            uploads_by_name=dict(self._uploads),
            files=len(self._files),
        )

    def request_arrived(self, connection: Connection, request: Request) -> bool:
        """Answer what is meant for this desk; False where it is not."""
        for method, pattern, route in _ROUTES:
            found = pattern.fullmatch(request.path)
            if found is None or request.method != method:
                continue
            try:
                if not request.path.startswith("/simulation/"):
                    require_key(self._behaviour(), request.headers)
                answer = route(self, request, *found.groups())
            except RefusedError as refused:
                connection.reply(refused.status, refused.body)
            else:
                self._reply(connection, answer)
            return True
        return False

    def _reply(self, connection: Connection, answer: Object | bytes | None) -> None:
        """None: the answer is lost on its way."""
        if answer is None:
            connection.reset()
        else:
            connection.reply(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    # --- files ---

    def _post_file(self, request: Request) -> Object | None:
        parts = _form_parts(request)
        _, content = parts.get("file", ("", b""))
        name = parts["file"][0] if "file" in parts else ""
        if not name or parts.get("purpose", ("", b""))[1] != b"batch":
            raise RefusedError(400, "A file with purpose 'batch' is required.", param="file")
        self._uploads[name] += 1
        file = self._keep(name, "batch", content)
        if self._is_lost("lost_uploads"):
            return None
        return self._file_object(file)

    def _get_files(self, request: Request) -> Object:
        purpose = dict(parse_qsl(request.query)).get("purpose")
        files = [one for one in self._files.values() if purpose in (None, one.purpose)]
        return self._page(request, [self._file_object(one) for one in reversed(files)])

    def _get_file(self, request: Request, file_id: str) -> Object:
        return self._file_object(self._file(file_id))

    def _get_content(self, request: Request, file_id: str) -> bytes:
        return self._file(file_id).content

    def _delete_file(self, request: Request, file_id: str) -> Object:
        del self._files[self._file(file_id).file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def _file(self, file_id: str) -> StoredFile:
        if file_id not in self._files:
            raise RefusedError(404, "No such File object.", param="id")
        return self._files[file_id]

    def _keep(self, name: str, purpose: str, content: bytes) -> StoredFile:
        self._n_files += 1
        file = StoredFile(
            file_id=f"file-{self._n_files:06}", name=name, purpose=purpose, content=content, made_at=_now()
        )
        self._files[file.file_id] = file
        return file

    def _file_object(self, file: StoredFile) -> Object:
        return {
            "id": file.file_id,
            "object": "file",
            "bytes": len(file.content),
            "created_at": int(time.time()),
            "filename": file.name,
            "purpose": file.purpose,
            "status": "processed" if self._is_usable(file) else "pending",
        }

    def _is_usable(self, file: StoredFile) -> bool:
        return _now() - file.made_at >= self.knobs.file_pending_ms / 1000

    # --- batches ---

    def _post_batch(self, request: Request) -> Object | None:
        if self.knobs.creation_status:
            raise RefusedError(self.knobs.creation_status, "Simulated: no.", code="token_limit_exceeded")
        try:
            asked = json.loads(request.body)
            file, endpoint = self._file(asked["input_file_id"]), str(asked["endpoint"])
            metadata = dict(asked.get("metadata") or {})
        except (ValueError, KeyError, TypeError):
            raise RefusedError(400, "input_file_id and endpoint are required.", param="input_file_id") from None
        if asked.get("completion_window") != "24h" or not self._is_usable(file):
            raise RefusedError(400, "The window must be 24h, and the file processed.", param="completion_window")
        batch = self._create(file, endpoint, metadata)
        return None if self._is_lost("lost_creations") else self._batch_object(batch)

    def _create(self, file: StoredFile, endpoint: str, metadata: Mapping[str, str]) -> StoredBatch:
        requests: Sequence[BatchRequestLine] = ()
        error: InvalidFileError | None = None
        try:
            if self.knobs.invalid:
                raise InvalidFileError("invalid_json_line", 1)
            requests = read_requests(file.content, endpoint=endpoint)
        except InvalidFileError as found:
            error = found
        batch = StoredBatch(
            batch_id=f"batch_{len(self._batches) + 1:06}",
            endpoint=endpoint,
            input_file_id=file.file_id,
            metadata={} if self.knobs.forgets_metadata else metadata,
            made_at=_now(),
            requests=requests,
            status="validating" if error is None else "failed",
            error=error,
        )
        self._batches[batch.batch_id] = batch
        self._tokens.update(metadata.values())
        self._requests.update(one.custom_id for one in requests)
        return batch

    def _get_batches(self, request: Request) -> Object:
        shown_before = _now() - self.knobs.listed_after_ms / 1000
        batches = [one for one in self._batches.values() if one.made_at <= shown_before]
        return self._page(request, [self._batch_object(one) for one in reversed(batches)])

    def _get_batch(self, request: Request, batch_id: str) -> Object:
        return self._batch_object(self._batch(batch_id))

    def _cancel_batch(self, request: Request, batch_id: str) -> Object:
        batch = self._batch(batch_id)
        self._work_on(batch)
        if batch.status not in ("validating", "in_progress"):
            raise RefusedError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        n_done = len(batch.requests) // 2 if batch.status == "in_progress" else 0
        self._end(batch, "cancelled", n_done=n_done, code="batch_cancelled")
        return self._batch_object(batch) | {"status": "cancelling"}

    def _batch(self, batch_id: str) -> StoredBatch:
        if batch_id not in self._batches:
            raise RefusedError(404, "No such Batch object.", param="id")
        return self._batches[batch_id]

    def _work_on(self, batch: StoredBatch) -> None:
        """Bring a batch to where it would be by now."""
        if batch.status not in ("validating", "in_progress"):
            return
        batch.status = "in_progress"
        if _now() - batch.made_at < self.knobs.latency_ms / 1000:
            return
        n_done = round(len(batch.requests) * (1 - self.knobs.expired_share))
        is_whole = n_done == len(batch.requests)
        self._end(batch, "completed" if is_whole else "expired", n_done=n_done, code="batch_expired")

    def _end(self, batch: StoredBatch, status: str, *, n_done: int, code: str) -> None:
        good: list[bytes] = []
        bad: list[bytes] = []
        for request in batch.requests[:n_done]:
            self._attempts[request.body] += 1
            answered, body = answer_request(
                self._behaviour(), request.body, attempt=self._attempts[request.body], created=int(time.time())
            )
            (good if answered == 200 else bad).append(output_line(request.custom_id, status=answered, body=body))
        batch.n_completed, batch.n_failed = len(good), len(bad)
        bad += [unanswered_line(request.custom_id, code=code) for request in batch.requests[n_done:]]
        batch.status = status
        seed = self._behaviour().seed
        if good:
            content = arranged(good, self.knobs, seed=seed)
            batch.output_file_id = self._keep(f"{batch.batch_id}_output.jsonl", "batch_output", content).file_id
        if bad:
            content = arranged(bad, self.knobs, seed=seed)
            batch.error_file_id = self._keep(f"{batch.batch_id}_error.jsonl", "batch_output", content).file_id

    def _batch_object(self, batch: StoredBatch) -> Object:
        self._work_on(batch)
        error = batch.error
        complaints = [] if error is None else [{"code": error.code, "line": error.line, "message": "Simulated."}]
        return {
            "id": batch.batch_id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": {"object": "list", "data": complaints} if complaints else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
            "created_at": int(time.time()),
            "request_counts": {
                "total": len(batch.requests),
                "completed": batch.n_completed,
                "failed": batch.n_failed,
            },
            "metadata": dict(batch.metadata),
        }

    # --- both ---

    def _page(self, request: Request, objects: Sequence[Object]) -> Object:
        if self.knobs.unlisted:
            raise RefusedError(404, "No such route.")
        asked = dict(parse_qsl(request.query))
        ids = [one["id"] for one in objects]
        begin = ids.index(asked["after"]) + 1 if asked.get("after") in ids else 0
        size = min(int(asked.get("limit", self.knobs.page_size)), self.knobs.page_size)
        page = objects[begin : begin + size]
        return {
            "object": "list",
            "data": list(page),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": begin + size < len(objects),
        }

    def _is_lost(self, knob: str) -> bool:
        left = int(getattr(self.knobs, knob))
        if left:
            self.change(**{knob: left - 1})
        return left > 0

    def _get_stats(self, request: Request) -> Object:
        return asdict(self.stats())

    def _post_knobs(self, request: Request) -> Object:
        try:
            self.change(**dict(json.loads(request.body)))
        except (TypeError, ValueError) as error:
            raise RefusedError(400, str(error)) from error
        return {}


Route = Callable[..., Object | bytes | None]

_ROUTES: Sequence[tuple[str, re.Pattern[str], Route]] = tuple(
    (method, re.compile(pattern), route)
    for method, pattern, route in (
        ("POST", "/v1/files", BatchDesk._post_file),
        ("GET", "/v1/files", BatchDesk._get_files),
        ("GET", "/v1/files/([^/]+)", BatchDesk._get_file),
        ("GET", "/v1/files/([^/]+)/content", BatchDesk._get_content),
        ("DELETE", "/v1/files/([^/]+)", BatchDesk._delete_file),
        ("POST", "/v1/batches", BatchDesk._post_batch),
        ("GET", "/v1/batches", BatchDesk._get_batches),
        ("GET", "/v1/batches/([^/]+)", BatchDesk._get_batch),
        ("POST", "/v1/batches/([^/]+)/cancel", BatchDesk._cancel_batch),
        ("GET", "/simulation/batches", BatchDesk._get_stats),
        ("POST", "/simulation/batches", BatchDesk._post_knobs),
    )
)


def _form_parts(request: Request) -> dict[str, tuple[str, bytes]]:
    """The parts of a form by name: file name, which may be empty, and content.

    :raises RefusedError: the body is no form
    """
    found = _BOUNDARY.search(request.headers.get(b"content-type", b""))
    if found is None:
        raise RefusedError(400, "A form is required.")
    parts: dict[str, tuple[str, bytes]] = {}
    for part in request.body.split(b"--" + found[1])[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name, file_name = _NAME.search(head), _FILE_NAME.search(head)
        if name is not None:
            parts[name[1].decode()] = (file_name[1].decode() if file_name else "", content.removesuffix(b"\r\n"))
    return parts


def _now() -> float:
    return asyncio.get_running_loop().time()
