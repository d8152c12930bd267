"""Reads what a Batch API says of files and batches. Pure and total: what makes no sense is read as nothing said."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.models import RemoteBatch, RemoteFile

#: a JSON object
Object = dict[str, object]

_MAX_ID_CHARS = 500
_MAX_COMPLAINTS = 5
#: a code or a status; whatever could be prose is dropped, for prose may quote a request
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list."""

    entries: Sequence[Object]
    has_more: bool
    #: where the next page begins
    last_id: str


def read_object(body: bytes) -> Object | None:
    """The JSON object in a body, or None."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_page(body: bytes, *, page_size: int) -> Page | None:
    """One page of a list, or None where the body is none.

    :param page_size: how many were asked for: where the provider does not say whether there are more, a full page
        means that there are
    """
    value = read_object(body)
    entries = value.get("data") if value is not None else None
    if value is None or not isinstance(entries, list):
        return None
    objects = [one for one in entries if isinstance(one, dict)]
    last_id = _id(value.get("last_id")) or (_id(objects[-1].get("id")) if objects else None)
    said = value.get("has_more")
    has_more = said if isinstance(said, bool) else len(objects) >= page_size
    return Page(entries=objects, has_more=has_more and last_id is not None, last_id=last_id or "")


def remote_file(value: Object) -> RemoteFile | None:
    """A file object; None without an id."""
    file_id = _id(value.get("id"))
    if file_id is None:
        return None
    name = value.get("filename")
    return RemoteFile(
        file_id=file_id,
        name=name if isinstance(name, str) else None,
        n_bytes=_count(value.get("bytes")),
        status=_name(value.get("status")),
    )


def remote_batch(value: Object) -> RemoteBatch | None:
    """A batch object; None without an id or a status."""
    batch_id, status = _id(value.get("id")), _name(value.get("status"))
    if batch_id is None or status is None:
        return None
    counts, metadata = value.get("request_counts"), value.get("metadata")
    counts = counts if isinstance(counts, dict) else {}
    metadata = metadata if isinstance(metadata, dict) else {}
    return RemoteBatch(
        remote_batch_id=batch_id,
        status=status,
        input_file_id=_id(value.get("input_file_id")),
        output_file_id=_id(value.get("output_file_id")),
        error_file_id=_id(value.get("error_file_id")),
        n_completed=_count(counts.get("completed")),
        n_failed=_count(counts.get("failed")),
        metadata={key: one for key, one in metadata.items() if isinstance(one, str)},
        complaints=_complaints(value.get("errors")),
    )


def _complaints(errors: object) -> tuple[str, ...]:
    listed = errors.get("data") if isinstance(errors, dict) else errors
    found: list[str] = []
    for one in listed if isinstance(listed, list) else ():
        code = _name(one.get("code")) if isinstance(one, dict) else None
        line = _count(one.get("line")) if isinstance(one, dict) else None
        if code is not None:
            found.append(code if line is None else f"{code} in line {line}")
    return tuple(dict.fromkeys(found))[:_MAX_COMPLAINTS]


def _id(value: object) -> str | None:
    """An id; some providers say "" where there is none."""
    is_one = isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_ID_CHARS
    return value if is_one and isinstance(value, str) else None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _count(value: object) -> int | None:
    # `type is`, because True is an int to isinstance.
    return value if type(value) is int and 0 <= value < 2**63 else None
