"""bespokelabs-curator: an `LLM` over a list of prompts, rows stored when its data set is complete."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from bench.floor import Answer
from bench.peers.common import Task, open_task
from bench.workload import MODEL, TEMPERATURE

#: its own limiter must not be what is measured
_NO_LIMIT = 10**9


def _work(task: Task) -> None:
    # First, for it makes tiktoken use the tables that litellm brings; curator alone would download them.
    import litellm.litellm_core_utils.default_encoding  # type: ignore[import-not-found]  # noqa: F401
    from bespokelabs import curator  # type: ignore[import-not-found]

    class Detector(curator.LLM):  # type: ignore[misc]
        return_completions_object = True

        def prompt(self, input: dict[str, Any]) -> list[dict[str, str]]:  # noqa: A002
            return [
                {"role": "system", "content": task.system_prompt},
                {"role": "user", "content": input["prompt"]},
            ]

        def parse(self, input: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:  # noqa: A002
            return {"row_num": input["row_num"], "completion": json.dumps(response)}

    detector = Detector(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": TEMPERATURE},
        backend_params={
            "base_url": task.base_url,
            "max_concurrent_requests": task.concurrency,
            "max_requests_per_minute": _NO_LIMIT,
            "max_tokens_per_minute": _NO_LIMIT,
        },
    )
    started = time.monotonic()
    prompts = [{"row_num": row_num, "prompt": task.user_prompt(item)} for row_num, item in task.items]
    found = detector(prompts, working_dir=str(task.directory / "curator")).dataset
    asyncio.run(_store(task, found, started))


async def _store(task: Task, found: Iterable[dict[str, Any]], started: float) -> None:
    items = dict(task.items)
    for one in found:
        answer = Answer.from_completion(json.loads(one["completion"]))
        task.add(one["row_num"], items[one["row_num"]], answer, started=started)
    task.close()


if __name__ == "__main__":
    _work(open_task())
