"""Owns the rows N of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

ROWS: tuple[FaultRow, ...] = (
    FaultRow(
        id="N01",
        fault="the endpoint refuses connections, its name does not resolve, or it is down for minutes",
        injected="a bound port that nobody listens on, a name under .invalid, an endpoint that closes its listener",
        required="the breaker waits; 0 error rows; at most 60 probes in 5 minutes; work goes on 35 s after it",
    ),
    FaultRow(
        id="N02",
        fault="the connection is reset after the request, in the middle of the head, in the middle of the body",
        injected="a raw server with SO_LINGER 0, at each of the three places",
        required="the call is tried again; at most 2 calls a narrative on average; 0 error rows",
    ),
    FaultRow(
        id="N03",
        fault="a server that takes the request and says nothing",
        injected="a raw server that reads and never writes",
        required="a timeout after the total deadline D, within 1 s of it",
    ),
    FaultRow(
        id="N04",
        fault="head or body come byte by byte, for ever",
        injected="a drip server; thousands of calls with a deadline far too short",
        required="the total deadline holds, at most D + 1 s; afterwards no connection, task or descriptor is left",
    ),
    FaultRow(
        id="N05",
        fault="a body without end, 100 MB, a gzip bomb, a wrong or unknown content encoding, a head without end",
        injected="a raw socket server in a thread of its own",
        required="given up at the cap; resident memory grows by at most 100 MB; loop lag below 100 ms",
    ),
    FaultRow(
        id="N06",
        fault="429 with Retry-After in every form: seconds, date, milliseconds, 0, -1, 1e9, nan, nothing",
        injected="a raw server that refuses one call in ten, each with another form; the simulated endpoint",
        required="a gate for all, never an error row; what cannot be read is no wish; an absurd one ends the run (75)",
    ),
    FaultRow(
        id="N07",
        fault="429 insufficient_quota, 401, 402, 403, 404 for the model",
        injected="a raw server that answers so from the first call, or from some call on",
        required="the run stops at once with one sentence (78); at most C calls after the first; 0 error rows",
    ),
    FaultRow(
        id="N08",
        fault="one answer in ten is 500, 502, 503, 504 or 529",
        injected="a raw server and the simulated endpoint, seeded by the text",
        required="tried again; 0 error rows; at most 1.2 calls a narrative",
    ),
    FaultRow(
        id="N09",
        fault="TLS: nobody vouches for the certificate, it is expired, it names another host; plain HTTP on one side",
        injected="certificates of a made-up authority (trustme)",
        required="stop with the cause (78); no request leaves; never a call without verification",
    ),
    FaultRow(
        id="N10",
        fault="301, 302, 303, 307, 308 to another host",
        injected="two servers",
        required="stop with one sentence; 0 connections to the second server",
    ),
    FaultRow(
        id="N11",
        fault="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY are set",
        injected="a listening proxy in every one of these variables",
        required="ignored: 0 connections to the proxy",
    ),
    FaultRow(
        id="N12",
        fault="the server closes a kept connection while it is idle",
        injected="a server that closes right after each answer, some time after it, and under the next request",
        required="another connection, once, and no attempt counted against the narrative; 0 error rows",
    ),
    FaultRow(
        id="N13",
        fault="the answer comes after the deadline",
        injected="a server that answers after D + a little",
        required="discarded, its connection with it; never taken for the answer to another call; one row a narrative",
    ),
    FaultRow(
        id="N14",
        fault="a server that queues instead of refusing, or thrashes under load",
        injected="virtual servers of 1, 4 and 64 slots, and the simulated endpoint",
        required="`auto` finds the knee and stays there",
    ),
    FaultRow(
        id="N15",
        fault="HTTP/1.0, 204, 206, 100-continue, SSE, HTML with status 200, an error object with status 200",
        injected="a raw server",
        required="HTTP/1.0 and 100-continue are read; the rest is `bad_envelope`, tried again; no crash",
    ),
    FaultRow(
        id="N16",
        fault="a server that dies again and again while one narrative is in flight",
        injected="a server process that exits when it meets the text, started again by the test",
        required="the culprit alone is an error row `endpoint_crash`; everything else succeeds; calls are bounded",
    ),
    FaultRow(
        id="N17",
        fault="refusals and errors in the words of OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio and OpenRouter",
        injected="84 bodies written after what each server says, judged, and sent over a socket",
        required="each is what its server means by it, whatever its words are; docs/servers.md has the same table",
    ),
    FaultRow(
        id="N18",
        fault="400 without code, type or parameter, as LM Studio says when its model has crashed",
        injected="a raw server that says so for a while to all, to one narrative, to every narrative but no probe",
        required="an outage leaves 0 error rows; one narrative is one row after five attempts; a setting stops the run",
    ),
)
