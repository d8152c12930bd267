"""The Batch API of OpenAI, Azure and those who copied them, behind the BatchProvider seam: files, batches, lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx

from narrun_async.config.request_options import BEARER
from narrun_async.errors import StorageError
from narrun_async.models import ErrorCategory, RawReply, RemoteBatch, RemoteFile
from narrun_async.providers.batch_objects import Object, Page, read_object, read_page, remote_batch, remote_file
from narrun_async.providers.one_shot import OneShotTransport
from narrun_async.providers.openai_compatible import completions_url, request_headers, written_forms
from narrun_async.providers.redaction import Redaction
from narrun_async.retrying import CallError, CallFailure, FailureClass, judge_call_error, judge_service_reply

#: of a call that carries no file
DEADLINE_S = 60.0
#: a file at 50 kB/s, and a provider that takes its time to look at it
_UPLOAD_GRACE_S, _SLOWEST_BYTES_PER_S = 300.0, 50_000
DOWNLOAD_STALL_S, _DOWNLOAD_S = 120.0, 6 * 3600.0
#: batches a page; the most that OpenAI gives
_PAGE = 100
#: a list that goes on beyond this has no end
MAX_PAGES = 500
#: the only window that there is
_WINDOW = "24h"

Found = TypeVar("Found")

_COMPLETIONS, _DEPLOYMENTS = "/chat/completions", "/openai/deployments/"


def batch_base_url(url: str) -> httpx.URL:
    """Where `/files` and `/batches` are, for an endpoint's chat completions URL; the query is kept.

    Azure's older URLs name the deployment in their path, which files and batches do not belong to.

    :raises ConfigurationError: it is no http(s) URL, or it carries credentials
    """
    parsed = httpx.URL(completions_url(url))
    path = parsed.path.removesuffix(_COMPLETIONS)
    before, separator, _ = path.partition(_DEPLOYMENTS)
    return parsed.copy_with(path=f"{before}/openai" if separator else path)


class OpenAIBatchProvider:
    """One provider, for one event loop; see `ports.BatchProvider`."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str | None,
        allow_remote: bool = False,
        extra_headers: Mapping[str, str] | None = None,
        key_header: str = BEARER,
        deadline_s: float = DEADLINE_S,
        stall_s: float = DOWNLOAD_STALL_S,
    ) -> None:
        """
        :param key_header: the header that carries the key as it is, or `bearer`
        :param deadline_s: of a call that carries no file
        :param stall_s: longest time of a download without a single byte
        :raises ConfigurationError: a URL, key or header that cannot be sent
        """
        self._deadline_s = deadline_s
        self._stall_s = stall_s
        self._base = batch_base_url(url)
        self._headers = request_headers(api_key, extra_headers or {}, key_header=key_header)
        self._secrets = written_forms(api_key)
        self._transport = OneShotTransport(allow_remote=allow_remote)

    async def upload_file(self, path: Path, *, name: str) -> RemoteFile | CallFailure:
        headers = {key: value for key, value in self._headers.items() if key != "Content-Type"}
        try:
            n_bytes = path.stat().st_size
            file = path.open("rb")
        except OSError as error:
            raise StorageError(f"cannot be read: {error.strerror}", path=path) from error
        with file:
            files = {"file": (name, file, "application/jsonl")}
            request = httpx.Request(
                "POST", self._url("/files"), headers=headers, data={"purpose": "batch"}, files=files
            )
            reply = await self._send(request, deadline_s=_UPLOAD_GRACE_S + n_bytes / _SLOWEST_BYTES_PER_S)
        # The request held narratives, and a provider may quote what it refuses.
        return _object(reply, remote_file, may_quote=False)

    async def find_file(self, name: str) -> RemoteFile | CallFailure | None:
        found = await self._list("/files", {"purpose": "batch"}, lambda one: one.get("filename") == name)
        if isinstance(found, CallFailure):
            return found
        files = [file for one in found if (file := remote_file(one)) is not None]
        return files[0] if files else None

    async def load_file(self, file_id: str) -> RemoteFile | CallFailure:
        return _object(await self._get(f"/files/{_segment(file_id)}"), remote_file)

    async def download_file(
        self, file_id: str, write: Callable[[bytes], None], *, max_bytes: int
    ) -> CallFailure | None:
        request = httpx.Request("GET", self._url(f"/files/{_segment(file_id)}/content"), headers=self._headers)
        redaction = Redaction(write, self._secrets)
        try:
            reply = await self._transport.download(
                request, redaction.write, max_bytes=max_bytes, stall_s=self._stall_s, deadline_s=_DOWNLOAD_S
            )
        except CallError as error:
            return judge_call_error(error)
        redaction.finish()
        return judge_service_reply(reply, may_quote=True)

    async def delete_file(self, file_id: str) -> CallFailure | None:
        request = httpx.Request("DELETE", self._url(f"/files/{_segment(file_id)}"), headers=self._headers)
        reply = await self._send(request)
        return reply if isinstance(reply, CallFailure) else judge_service_reply(reply, may_quote=True)

    async def create_batch(
        self, input_file_id: str, *, endpoint: str, metadata: Mapping[str, str]
    ) -> RemoteBatch | CallFailure:
        asked = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": _WINDOW}
        return _object(await self._post("/batches", asked | {"metadata": dict(metadata)}), remote_batch)

    async def find_batch(self, *, token: str, input_file_id: str | None) -> RemoteBatch | CallFailure | None:
        # By its file, too: not every provider keeps metadata.
        def is_meant(one: Object) -> bool:
            metadata = one.get("metadata")
            has_token = isinstance(metadata, dict) and token in metadata.values()
            return has_token or (input_file_id is not None and one.get("input_file_id") == input_file_id)

        found = await self._list("/batches", {"limit": str(_PAGE)}, is_meant)
        if isinstance(found, CallFailure):
            return found
        batches = [batch for one in found if (batch := remote_batch(one)) is not None]
        if found and not batches:
            return _unreadable(200)  # there is one, and to take it for none would be to create, and pay for, another
        # Should there be several, one that has answers, or will have some, is the one to go on with.
        return min(batches, key=lambda one: one.status in ("failed", "cancelled", "expired"), default=None)

    async def load_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        return _object(await self._get(f"/batches/{_segment(remote_batch_id)}"), remote_batch)

    async def cancel_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        return _object(await self._post(f"/batches/{_segment(remote_batch_id)}/cancel", {}), remote_batch)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    # --- requests ---

    def _url(self, path: str, **query: str) -> httpx.URL:
        before = self._base.raw_path.partition(b"?")[0].rstrip(b"/")
        return self._base.copy_with(raw_path=before + path.encode("ascii")).copy_with(
            params=self._base.params.merge(query)
        )

    async def _get(self, path: str, **query: str) -> RawReply | CallFailure:
        return await self._send(httpx.Request("GET", self._url(path, **query), headers=self._headers))

    async def _post(self, path: str, body: Object) -> RawReply | CallFailure:
        content = json.dumps(body).encode("ascii")
        return await self._send(httpx.Request("POST", self._url(path), headers=self._headers, content=content))

    async def _send(self, request: httpx.Request, *, deadline_s: float | None = None) -> RawReply | CallFailure:
        try:
            return await self._transport.exchange(request, deadline_s=deadline_s or self._deadline_s)
        except CallError as error:
            return judge_call_error(error)

    async def _list(
        self, path: str, query: Mapping[str, str], is_meant: Callable[[Object], bool]
    ) -> Sequence[Object] | CallFailure:
        """Of all that the provider lists, page by page, those that are meant."""
        found: list[Object] = []
        seen: set[str] = set()
        cursor: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = _page(await self._get(path, **query, **cursor))
            if isinstance(page, CallFailure):
                return page
            new = [one for one in page.entries if one.get("id") not in seen]
            found += [one for one in new if is_meant(one)]
            seen |= {str(one.get("id")) for one in new}
            if not page.has_more or not new:  # a provider that does not know cursors gives the same page again
                return found
            cursor = {"after": page.last_id}
        return CallFailure(
            failure_class=FailureClass.TRANSIENT, category=ErrorCategory.BAD_ENVELOPE, message="the list has no end"
        )


def _segment(remote_id: str) -> str:
    """An id as one segment of a path, whatever characters a provider puts into it."""
    return quote(remote_id, safe="")


def _page(reply: RawReply | CallFailure) -> Page | CallFailure:
    if isinstance(reply, CallFailure):
        return reply
    return judge_service_reply(reply, may_quote=True) or read_page(reply.body, page_size=_PAGE) or _unreadable(200)


def _object(
    reply: RawReply | CallFailure, read: Callable[[Object], Found | None], *, may_quote: bool = True
) -> Found | CallFailure:
    """What an answer tells of one file or batch."""
    if isinstance(reply, CallFailure):
        return reply
    failure = judge_service_reply(reply, may_quote=may_quote)
    if failure is not None:
        return failure
    value = read_object(reply.body)
    found = read(value) if value is not None else None
    return found if found is not None else _unreadable(reply.status)


def _unreadable(status: int) -> CallFailure:
    return CallFailure(
        failure_class=FailureClass.TRANSIENT,
        category=ErrorCategory.BAD_ENVELOPE,
        message="the endpoint's answer is not what a Batch API answers",
        http_status=status,
    )
