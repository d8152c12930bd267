"""`--concurrency auto` against a server that queues instead of refusing."""

from __future__ import annotations

import re

from harness import Workplace
from questions import write_config
from serving import SLOTS, LlamaServer

#: so many that it looks around more than once, on a slow machine, too
NARRATIVES = 300


def test_auto_tries_more_than_four_slots_serve_and_comes_back(workplace: Workplace, server: LlamaServer) -> None:
    config = write_config(workplace, server.url, narratives=NARRATIVES)

    workplace.run("run", config, "--concurrency", "auto").expect(0)

    assert len(workplace.rows()) == NARRATIVES
    (log,) = workplace.directory.glob("logs/experiments/*/run.log")
    course = [int(limit) for limit in re.findall(r"limit: (\d+) in flight", log.read_text(encoding="utf-8"))]
    print(f"--concurrency auto on {SLOTS} slots: {' → '.join(map(str, course))} in flight")
    # On a quiet machine 8 → 2 → 4 → 5. Noise can make a doubling look like a gain once or twice, so what is asked for
    # is what noise cannot do: it looks beyond the slots, finds that this gains nothing, and comes down again.
    assert max(course) >= 2 * SLOTS
    assert course[-1] < max(course) <= 32
    assert course[-1] <= 16
