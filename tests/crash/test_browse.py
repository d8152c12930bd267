"""`narrun browse` as a process: who gets in, what no address gives, what is left when it ends.

Every place of the database that may hold a narrative holds the canary, wherever the words would come from.
"""

from __future__ import annotations

import http.client
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from harness import Process, Workplace, wait_until
from reliability import Measured

pytestmark = pytest.mark.crash

#: what a request may hold, and an answer that repeats the request
KNOWN = "NARRATIVECANARY"
#: what no request holds
CANARY = f"{KNOWN} the neighbour heard a made-up argument"
CANARY_TAIL = "made-up argument"
MARKUP = "<script>alert(1)</script>"

#: table → columns that are given the canary
PLACES: Mapping[str, tuple[str, ...]] = {
    "source_narratives": ("narrative_text",),
    "narrative_results": (
        *("narrative_text", "indicators", "rationale", "reasoning_steps", "raw_response"),
        *("error_message", "first_error_message"),
    ),
    "attempts": ("error_message",),
    "experiments": ("system_prompt", "user_template", "config_json"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A run that has ended, then canaries everywhere."""
    workplace = Workplace(directory=tmp_path_factory.mktemp("browse"))
    config = workplace.write_config(url=None, narratives=workplace.write_narratives(20), simulation__latency_ms=1)
    workplace.run("run", config, "--concurrency", "8").expect(0)
    with closing(sqlite3.connect(workplace.database)) as connection, connection:
        for table, columns in PLACES.items():
            for name in columns:
                connection.execute(f"UPDATE {table} SET {name} = ?", [CANARY])
        connection.execute("UPDATE runs SET exit_code = 78, ended_why = ?", [CANARY])
        connection.execute("UPDATE narrative_results SET error_occurred = 1, detected = NULL WHERE result_id = 3")
        connection.execute("UPDATE experiments SET experiment_name = ?", [f"crash {MARKUP}"])
        connection.execute("UPDATE narrative_results SET finish_reason = ?", [MARKUP])
        connection.execute("CREATE TABLE somebodys (words TEXT)")
        connection.execute("INSERT INTO somebodys VALUES (?)", [CANARY])
    workplace.run("list").expect(0)  # a reader leaves -wal and -shm beside the file; they are there from now on
    return workplace


@dataclass(kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str = field(repr=False)


@dataclass(kw_only=True)
class Site:
    """A browser that has opened the link, or has not."""

    process: Process
    port: int
    secret: str
    cookie: str | None = None

    def get(self, address: str, *, method: str = "GET", host: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Host": host or f"127.0.0.1:{self.port}"} | ({"Cookie": self.cookie} if self.cookie else {})
        with closing(connection):
            connection.request(method, address, headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
            return Answer(status=answer.status, headers=dict(answer.getheaders()), body=body)

    def enter(self) -> Answer:
        answer = self.get(f"/narrun?secret={self.secret}")
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer


@contextmanager
def browsing(workplace: Workplace, *arguments: str) -> Iterator[Site]:
    with workplace.start("browse", *arguments, stdout=subprocess.PIPE) as process:
        link = urlsplit(process.stdout.readline().decode().strip())
        assert link.hostname == "127.0.0.1", process.read_err()
        assert link.port is not None
        site = Site(process=process, port=link.port, secret=parse_qs(link.query)["secret"][0])
        site.enter()
        yield site


@pytest.fixture(scope="module")
def site(finished: Workplace) -> Iterator[Site]:
    with browsing(finished) as site:
        yield site


# --- what no address gives -------------------------------------------------------------------------------------------

TABLE = "/narrun/narrative_results"
HOSTILE = [
    *(f"{TABLE}{end}" for end in (".json", ".csv", ".csv?_stream=1", ".json?_shape=array&_nl=on", "/1", "/1.json")),
    *(f"{TABLE}.json?{column}__contains={KNOWN}" for column in PLACES["narrative_results"]),
    *(f"{TABLE}?raw_response__{how}={KNOWN}" for how in ("like", "glob", "gt", "notblank")),
    *(f"{TABLE}.json?_{what}=narrative_text" for what in ("facet", "facet_array", "col", "sort", "label")),
    f"{TABLE}?_facet_array=indicators",
    f"{TABLE}?_search={KNOWN}",
    f"{TABLE}?_search_narrative_text={KNOWN}",
    f"{TABLE}?_fts_table=source_narratives&_fts_pk=narrative_id&_search={KNOWN}",
    f"{TABLE}?_where=narrative_text+like+'%25{KNOWN}%25'",
    f"{TABLE}?_through=" + '{"table":"source_narratives","column":"narrative_text","value":"x"}',
    f"{TABLE}.blob?_blob_column=raw_response",
    f"{TABLE}/1.blob?_blob_column=raw_response",
    f"{TABLE}?_trace=1&_context=1&_labels=on&_size=max",
    f"{TABLE}?_timelimit=nonsense-{KNOWN}",
    f"{TABLE}?_next={KNOWN}&_size=-1",
    *(f"/narrun/{table}" for table in ("source_narratives", "source_narratives.json", "source_narratives/1")),
    *(f"/narrun/{table}" for table in ("somebodys", "somebodys.csv", "sqlite_schema", "sqlite_master.json")),
    *(f"/narrun{end}" for end in (".json", ".db", "?_show_hidden=1")),
    "/narrun?sql=select+narrative_text+from+narrative_results",
    "/narrun.json?sql=select+*+from+source.source_narratives",
    "/narrun?sql=select+name,sql+from+sqlite_schema",
    "/narrun.csv?sql=select+readfile('experiments.db')",
    "/narrun/progress?experiment='+union+select+narrative_text+from+narrative_results--",
    "/narrun/progress.json?sql=select+1&experiment=%25",
    "/narrun/disagreements_with_labels?_hide_sql=&experiment=",
    *(f"/{name}" for name in ("_memory", "_internal", "_internal.json", "_memory?sql=select+1", "experiments.db")),
    *(
        f"/-/{page}"
        for page in (
            *("metadata.json", "databases.json", "settings.json", "versions.json", "plugins.json", "threads.json"),
            *("actor.json", "permissions", "messages", "allow-debug", "patterns", "auth-token?token=", "logout"),
            *("static/../../app.py", "static/%2e%2e/%2e%2e/%2e%2e/experiments.db", "static//etc/passwd"),
        )
    ),
    f"/{KNOWN}",
    f"/narrun/{KNOWN}/{KNOWN}",
]


def pages_from(site: Site, *, at_most: int) -> Iterator[tuple[str, Answer]]:
    """Pages that links lead to, breadth first."""
    waiting, seen = ["/", "/narrun"], {"/", "/narrun"}
    for _ in range(at_most):
        address = waiting.pop(0)
        answer = site.get(address)
        yield address, answer
        for link in re.findall(r'href="([^"]+)"', answer.body) if "html" in answer.headers["content-type"] else ():
            path = link.replace("&amp;", "&").partition("#")[0].removeprefix(f"http://127.0.0.1:{site.port}")
            if path.startswith("/") and path not in seen:
                seen.add(path)
                waiting.append(path)


@pytest.mark.fault("S02")
def test_no_address_gives_a_word_of_a_narrative(site: Site, measured: Measured) -> None:
    n_pages = 0
    for address, answer in [*((one, site.get(one)) for one in map(quoted, HOSTILE)), *pages_from(site, at_most=100)]:
        assert CANARY_TAIL not in answer.body, address
        assert CANARY_TAIL not in str(answer.headers), address
        assert answer.status < 600
        n_pages += 1
    assert n_pages > 150
    assert KNOWN not in site.process.read_err()
    measured(f"browse: 0 hits in {n_pages} pages, {len(HOSTILE)} of them asked for by hand")


def quoted(address: str) -> str:
    return address.replace(" ", "%20").replace('"', "%22").replace("{", "%7B").replace("}", "%7D")


@pytest.mark.parametrize("column", PLACES["narrative_results"])
def test_a_filter_on_a_text_does_not_tell_whether_it_matches(site: Site, column: str) -> None:
    """Otherwise a narrative could be guessed letter by letter."""

    def told(words: str) -> str:
        body = site.get(f"{TABLE}.json?{column}__contains={words}").body.replace(words, "")
        return re.sub(r'"query_ms": [0-9.]+', "", body)

    assert told(KNOWN) == told("NOSUCHWORDATALL")


@pytest.mark.parametrize(
    "address", ["/narrun?sql=select+1", "/narrun.json?sql=select+1", f"{TABLE}?_where=1", "/_memory?sql=select+1"]
)
def test_sql_of_ones_own_is_refused(site: Site, address: str) -> None:
    assert site.get(address).status in (400, 403, 404)


def test_the_database_cannot_be_downloaded(site: Site) -> None:
    assert site.get("/narrun.db").status in (403, 404)
    assert "SQLite format" not in site.get("/narrun.db").body


def test_with_texts_the_narratives_are_there_and_that_is_said(finished: Workplace) -> None:
    with browsing(finished, "--with-text") as site:
        assert CANARY_TAIL in site.get(TABLE).body
        assert "20 rows" in site.get(f"{TABLE}?narrative_text__contains={KNOWN}").body
        assert "WITH narratives" in site.get("/narrun").body
        assert site.get("/narrun?sql=select+1").status == 403
        assert "whoever has the link can read every narrative" in site.process.read_err()


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_pages_say_what_they_show(site: Site, finished: Workplace) -> None:
    start, results = site.get("/narrun").body, site.get(TABLE).body
    assert "experiments.db" in start and "SIMULATED" in start
    for words in ("Progress", "Errors by category", "Disagreements with labels", "Detection by type"):
        assert words in start
    for words in ("20 rows", "agreement", "What the columns mean", "The model&#39;s answer: whether the person"):
        assert words in results
    assert "100.0" in site.get("/narrun/progress").body
    assert finished.experiment_id() in site.get("/narrun/experiments").body


@pytest.mark.fault("S07")
def test_one_experiment_is_shown_alone_and_markup_in_its_name_is_text(finished: Workplace, measured: Measured) -> None:
    with browsing(finished, "latest") as site:
        for address in ("/", "/narrun", TABLE, f"{TABLE}/1", "/narrun/experiments", "/narrun/progress", f"/{MARKUP}"):
            assert MARKUP not in site.get(address).body, address
        assert "&lt;script&gt;alert(1)" in site.get(TABLE).body
        measured("browse: escaped on every page")
        assert "experiments.db: crash" in site.get("/narrun").body
        assert "sorted by row_num" in site.get(TABLE).body
        assert "Query parameters" not in site.get("/narrun/progress").body


def test_pages_load_nothing_from_elsewhere_and_are_kept_by_nobody(site: Site) -> None:
    for address, answer in pages_from(site, at_most=15):
        assert "default-src 'none'" in answer.headers["content-security-policy"], address
        assert answer.headers["cache-control"] == "no-store", address
        for loaded in re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"', answer.body):
            assert "".join(loaded).startswith(("/", f"http://127.0.0.1:{site.port}/")), (address, loaded)


# --- who gets in -----------------------------------------------------------------------------------------------------


def test_without_the_link_nothing_is_served(site: Site) -> None:
    other = replace(site, cookie=None)
    for address in ("/", "/narrun", TABLE, "/-/static/app.css", "/narrun?secret=wrong", "/narrun?secret="):
        assert other.get(address).status == 403
    other.cookie = f"narrun_browse_{site.port}=wrong"
    assert other.get("/narrun").status == 403
    entered = other.enter()
    assert (entered.status, entered.headers["location"]) == (303, "/narrun")
    assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=Lax" in entered.headers["set-cookie"]
    assert other.get("/narrun").status == 200


def test_a_web_site_that_has_this_address_by_another_name_gets_nothing(site: Site) -> None:
    assert site.get("/narrun", host=f"rebound.example:{site.port}").status == 421
    assert site.get(f"/narrun?secret={site.secret}", host="rebound.example").status == 421
    assert site.get("/narrun", host=f"localhost:{site.port}").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_can_only_be_read(site: Site, method: str) -> None:
    assert site.get("/narrun/progress", method=method).status == 405


def test_it_listens_on_this_machine_alone(site: Site) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {fields[1] for fields in listening if fields[1].endswith(f":{site.port:04X}") and fields[3] == "0A"}
    assert addresses == {f"0100007F:{site.port:04X}"}
    assert f":{site.port:04X} " not in Path("/proc/net/tcp6").read_text()


# --- beside a run, and the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_left(finished: Workplace, number: signal.Signals) -> None:
    def files() -> dict[Path, int]:
        return {
            path: path.stat().st_size
            for path in finished.directory.rglob("*")
            if not re.match(r"(out|err)-\d+\.txt", path.name)  # of the harness
        }

    before = files()
    with browsing(finished) as site:
        site.get(TABLE)
        during = files()
        site.process.send(number)
        ended = site.process.wait(at_most_s=10)
    assert ended.code == 0
    assert "Traceback" not in ended.err
    assert files() == during == before


def test_beside_a_run_it_shows_the_run_and_lets_it_write(workplace: Workplace) -> None:
    narratives = workplace.write_narratives(2000)
    config = workplace.write_config(url=None, narratives=narratives, simulation__latency_ms=200)
    with workplace.start("run", config, "--concurrency", "8") as run:
        workplace.wait_for_rows(20, run)
        with browsing(workplace) as site:
            assert ">running<" in re.sub(r"\s", "", site.get("/narrun/progress").body)
            before = workplace.count_rows()
            for _ in range(5):
                assert site.get(TABLE).status == 200
            wait_until(lambda: workplace.count_rows() > before, what="the run goes on", at_most_s=10)
            run.kill()
    workplace.run("verify").expect(0)


def test_what_cannot_be_browsed_is_told_in_one_sentence(workplace: Workplace, finished: Workplace, site: Site) -> None:
    assert "there is no database here" in workplace.run("browse").expect(74).err
    assert "no experiment answers to" in finished.run("browse", "0123456789").expect(2).err
    taken = finished.run("browse", "--port", str(site.port)).expect(75)
    assert f"cannot listen on 127.0.0.1:{site.port}" in taken.err
