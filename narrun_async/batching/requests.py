"""Owns the lines of a batch file, and the identifiers by which answers, files and batches are known again. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from narrun_async.models import ExperimentId, NarrativeId

#: what every provider takes; Zhipu and Anthropic refuse more
MAX_CUSTOM_ID_CHARS = 64
#: so that number and narrative find room beside the experiment
MAX_NUMBER = 999_999

_CUSTOM_ID = re.compile(
    r"(?P<experiment>[0-9A-Za-z-]{36})-(?P<number>[1-9]\d{0,5})-(?P<narrative_id>[1-9]\d{0,18})", re.ASCII
)
_UUID_LIKE = re.compile(r"[0-9A-Za-z-]{36}", re.ASCII)

#: the key of a batch's metadata that holds its token
METADATA_KEY = "narrun_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """What a custom_id stands for."""

    experiment: str
    number: int
    narrative_id: NarrativeId


def experiment_key(experiment_id: ExperimentId) -> str:
    """36 characters that stand for an experiment: its id, or a digest of an id that is no UUID."""
    if _UUID_LIKE.fullmatch(experiment_id):
        return experiment_id
    return hashlib.sha256(experiment_id.encode("utf-8", "surrogatepass")).hexdigest()[:36]


def custom_id_of(key: RequestKey) -> str:
    """At most 64 characters; the same for the same narrative in the same batch, another one in any other batch.

    The number is in it so that an answer to an earlier asking, from a file that lay about, is not taken for one to a
    later.
    """
    return f"{key.experiment}-{key.number}-{key.narrative_id}"


def parse_custom_id(text: str) -> RequestKey | None:
    """The way back; None for an id that is none of ours."""
    found = _CUSTOM_ID.fullmatch(text)
    if found is None:
        return None
    return RequestKey(
        experiment=found["experiment"],
        number=int(found["number"]),
        narrative_id=NarrativeId(int(found["narrative_id"])),
    )


def request_line(custom_id: str, *, endpoint: str, body: bytes) -> bytes:
    """One request as the Batch API, and `vllm run-batch`, read it, ended by LF.

    :param body: exactly what a live call would send, one line of JSON
    """
    return b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n' % (
        custom_id.encode("ascii"),
        endpoint.encode("ascii"),
        body,
    )


def token_of(experiment_id: ExperimentId, number: int, *, input_sha256: str, n_resubmissions: int) -> str:
    """By which a batch is known at the provider: 32 hex digits of what it asks.

    The same file of the same experiment has the same token, also in a database that was put back from an older copy: so
    a batch that such a database forgot is found again instead of being paid for twice.
    """
    said = "\n".join((experiment_id, str(number), input_sha256, str(n_resubmissions)))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def remote_name(token: str) -> str:
    """What a batch's file is called at the provider; says nothing of the study."""
    return f"narrun-{token}.jsonl"


def endpoint_of(api_url: str | None) -> str:
    """What the requests of a batch are addressed to. Azure's older URLs name it without a version."""
    path = urlsplit(api_url or "").path
    return "/chat/completions" if "/openai/deployments/" in path else "/v1/chat/completions"
