"""The demonstration's report in a browser: silent, asking for nothing, readable on a phone and on a wide screen."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import pytest
from chromium import Chromium, open_chromium
from conftest import find_program

REPOSITORY = Path(__file__).resolve().parents[2]
PHONE, WIDE = 400, 1600
VIEWS = [(width, dark) for width in (PHONE, WIDE) for dark in (False, True)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `bin/demo` writes, in a directory of its own, against an endpoint that answers at once."""
    root = tmp_path_factory.mktemp("demo")
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    (root / "bin").mkdir()
    shutil.copy(REPOSITORY / "bin" / "demo", root / "bin" / "demo")
    config = root / "configs" / "demo.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(re.sub(r"latency_ms: \d+", "latency_ms: 4", text), encoding="utf-8")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = {"PYTHONPATH": str(REPOSITORY)}
    finished = subprocess.run(
        [root / "bin" / "demo"], cwd="/", env=os.environ | path, capture_output=True, text=True, timeout=180
    )
    assert finished.returncode == 0, finished.stderr
    assert "resume latest" not in finished.stdout and "EVERY NARRATIVE" in finished.stdout
    written = root / "demo" / "report.html"
    assert not written.stat().st_mode & 0o077
    return written


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_program("chromium", "chromium-browser", package="chromium")
    with open_chromium(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_report_is_silent_asks_for_nothing_and_fits(
    browser: Chromium, report: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    visit = browser.open(report.as_uri(), width=width, dark=dark)
    assert visit.urls == [report.as_uri()]
    assert visit.messages == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
    picture = matplotlib.image.imread(browser.screenshot(tmp_path / "shot.png"))
    assert picture.shape[1] == width and picture[..., :3].std() > 0.03


def test_every_drawing_is_drawn_and_every_text_of_it_can_be_read_on_a_phone(browser: Chromium, report: Path) -> None:
    browser.open(report.as_uri(), width=PHONE)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('svg.chart, svg.flow.narrow')].map(svg => [svg.getBoundingClientRect().width,"
        " Math.min(...[...svg.querySelectorAll('text')].map(text => parseFloat(getComputedStyle(text).fontSize)"
        " * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))])"
    )
    assert len(sizes) >= 12
    assert all(width > 300 and letters >= 9.5 for width, letters in sizes), sizes
    hidden = browser.evaluate("getComputedStyle(document.querySelector('svg.flow.wide')).display")
    assert hidden == "none"


def test_texts_stand_out_from_what_is_behind_them_by_day_and_by_night(browser: Chromium, report: Path) -> None:
    """WCAG AA: 4.5 to 1, for every colour of text on every colour of ground that it may stand on."""
    for dark in (False, True):
        browser.open(report.as_uri(), width=WIDE, dark=dark)
        found = browser.evaluate(
            "Object.fromEntries(['ink', 'muted', 'first', 'second', 'bad', 'paper', 'soft', 'note', 'warning', 'alarm']"
            ".map(name => [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"
        )
        grounds = {name: found[name] for name in ("paper", "soft", "note", "warning", "alarm")}
        pairs = [("ink", name) for name in grounds]
        pairs += [(text, ground) for text in ("muted", "first") for ground in ("paper", "soft")]
        pairs += [("second", "paper"), ("bad", "paper")]
        for text, ground in pairs:
            assert _contrast(found[text], found[ground]) >= 4.5, (dark, text, ground)


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class _Counting(http.server.BaseHTTPRequestHandler):
    """Notes who asks."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (_Counting,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", asked
        listening.shutdown()
        thread.join()


def test_a_request_would_be_noticed_and_the_policy_of_the_report_stops_it(
    browser: Chromium, report: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    url, asked = server
    document = report.read_text(encoding="utf-8").replace("</body>", f'<img src="{url}/pixel"></body>')
    guarded, bare = tmp_path / "guarded.html", tmp_path / "bare.html"
    guarded.write_text(document, encoding="utf-8")
    bare.write_text(re.sub(r"<meta http-equiv=.*?>", "", document), encoding="utf-8")

    visit = browser.open(guarded.as_uri(), width=WIDE)
    assert asked == []
    assert any("Content Security Policy" in message for message in visit.messages)

    visit = browser.open(bare.as_uri(), width=WIDE)
    assert asked == ["/pixel"]
    assert f"{url}/pixel" in visit.urls


def test_a_script_would_be_noticed_and_does_not_run(browser: Chromium, report: Path, tmp_path: Path) -> None:
    attacked = tmp_path / "attacked.html"
    document = report.read_text(encoding="utf-8")
    attacked.write_text(document.replace("</body>", "<script>document.title = 'ran'</script></body>"), encoding="utf-8")
    visit = browser.open(attacked.as_uri(), width=WIDE)
    assert browser.evaluate("document.title") != "ran"
    assert visit.messages != []
