"""Where a process really connects to, as the kernel sees it, for names and numbers that lead away."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest
from harness import NARRUN, Workplace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")]

#: one call to each URL, through the provider; what a name resolves to is said by a resolver of the test, in the place
#: where the event loop asks the operating system
_DIAL = """
import asyncio, json, socket, sys
from narrun_async.errors import ConfigurationError
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError

urls, names, allow_remote = json.load(sys.stdin)
asked = {}
system = socket.getaddrinfo

def resolve(host, port, family=0, type=0, proto=0, flags=0):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in names:
        return system(host, port, family, type, proto, flags)
    answers = names[name]
    asked[name] = asked.get(name, -1) + 1
    addresses = answers[min(asked[name], len(answers) - 1)]
    return [
        (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "",
         (ip, port, 0, 0) if ":" in ip else (ip, port))
        for ip in addresses
    ]

socket.getaddrinfo = resolve

async def dial(url):
    # each call through a provider of its own, so that each asks the resolver anew
    told = []
    for _ in range(2):
        try:
            provider = OpenAICompatibleProvider(url=url, api_key=None, allow_remote=allow_remote)
        except ConfigurationError:
            return ["NO_URL"]
        try:
            told.append((await provider.complete(b"{}")).status)
        except CallError as error:
            told.append(error.problem.name)
        finally:
            await provider.aclose()
    return told

async def main():
    print(json.dumps({url: await dial(url) for url in urls}))

asyncio.run(main())
"""

REFUSED = [
    "8.8.8.8",
    "134744072",
    "0x08.0x08.0x08.0x08",
    "010.010.010.010",
    "8.526344",
    "[::ffff:1.2.3.4]",
    "[::ffff:808:808]",
    "[64:ff9b::808:808]",
    "[2002:808:808::1]",
    "169.254.169.254",
    "[fe80::1]",
    "0.0.0.0",
    "[::]",
    "127.0.0.1.nip.example",
    "public.example",
    "metadata.example",
    "mixed6.example",
]
ALLOWED = ["127.0.0.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "localhost.example"]
#: name → what the resolver says at the first, second, … question
NAMES = {
    "127.0.0.1.nip.example": [["8.8.8.8"]],
    "public.example": [["8.8.8.8", "1.1.1.1"]],
    "metadata.example": [["169.254.169.254"]],
    "mixed6.example": [["2606:4700::1111", "::ffff:8.8.8.8"]],
    "localhost.example": [["127.0.0.1"]],
    "rebinding.example": [["127.0.0.1"], ["8.8.8.8"]],
    "rebound.example": [["8.8.8.8"], ["127.0.0.1"]],
}
_CONNECTED = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def dial(workplace: Workplace, urls: list[str], *, allow_remote: bool = False) -> tuple[dict[str, list[Any]], set[str]]:
    """What became of the calls, and every address that a system call of the process named."""
    (workplace.directory / "stdin.json").write_text(json.dumps([urls, NAMES, allow_remote]))
    trace = workplace.directory / "trace.txt"
    command = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace))
    with (
        (workplace.directory / "stdin.json").open("rb") as stdin,
        workplace.start_command(*command, NARRUN[0], "-c", _DIAL, stdin=stdin) as process,
    ):
        told = json.loads(process.wait().expect(0).out)
    found = {four or six for four, six in _CONNECTED.findall(trace.read_text())}
    return told, found


@pytest.mark.fault("S05")
def test_no_system_call_names_an_address_away_from_this_machine(workplace: Workplace, measured: Any) -> None:
    refused = [f"http://{host}:9/v1" for host in REFUSED]
    changing = ["http://rebinding.example:9/v1", "http://rebound.example:9/v1"]
    allowed = [f"http://{host}:9/v1" for host in ALLOWED]

    told, addresses = dial(workplace, [*refused, *changing, *allowed])

    assert {url: told[url] for url in refused if told[url] not in (["EGRESS", "EGRESS"], ["NO_URL"])} == {}
    assert sum(told[url] == ["EGRESS", "EGRESS"] for url in refused) >= 14
    # judged at each dial: the answer of a moment ago counts for nothing
    assert told[changing[0]] == ["UNREACHABLE", "EGRESS"]
    assert told[changing[1]] == ["EGRESS", "UNREACHABLE"]
    # Some ways of writing this machine are no URL for us, or are refused all the same; nothing else may become of them.
    dialled = [url for url in allowed if told[url] == ["UNREACHABLE", "UNREACHABLE"]]
    others = {url: told[url] for url in allowed if url not in dialled}
    assert all(one in (["NO_URL"], ["EGRESS", "EGRESS"]) for one in others.values()), others
    assert len(dialled) >= 3
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert "127.0.0.1" in addresses, "the trace saw nothing"
    measured(
        f"{len(refused)} ways to lead away and 2 resolvers that change their mind: 0 connects to another address;"
        f" {len(dialled)} ways to write this machine: dialled"
    )


@pytest.mark.fault("S05")
def test_a_run_with_a_name_that_leads_away_stops_with_one_sentence_and_sends_nothing(
    workplace: Workplace, measured: Any
) -> None:
    config = workplace.write_config(url="http://134744072:9/v1", narratives=workplace.write_narratives(5))
    trace = workplace.directory / "trace.txt"
    command = ("strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), *NARRUN, "run", str(config))
    with workplace.start_command(*command) as run:
        stopped = run.wait().expect(78)
    assert "not one that may be dialled" in stopped.err
    assert _CONNECTED.findall(trace.read_text()) == []
    assert workplace.count_rows() == 0
    measured("a whole run: exit 78, 0 rows, 0 connects")


def test_an_address_that_may_not_be_dialled_is_refused_before_anything_is_made(workplace: Workplace) -> None:
    config = workplace.write_config(url="http://8.8.8.8:9/v1", narratives=workplace.write_narratives(5))
    refused = workplace.run("run", str(config)).expect(78)
    assert "8.8.8.8 is none" in refused.err and "privacy.allow_remote" in refused.err
    assert not workplace.database.exists() and not (workplace.directory / "logs").exists()


def test_the_trace_would_show_an_address_that_is_dialled(workplace: Workplace) -> None:
    told, addresses = dial(workplace, ["http://127.9.9.9:9/v1"])
    assert told == {"http://127.9.9.9:9/v1": ["UNREACHABLE", "UNREACHABLE"]}
    assert "127.9.9.9" in addresses
