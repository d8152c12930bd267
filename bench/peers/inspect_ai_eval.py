"""inspect_ai: a task whose solver generates and stores the row; its own log of samples is switched off."""

from __future__ import annotations

import os
import time
from typing import Any

from bench.floor import Answer
from bench.peers.common import Task, open_task
from bench.workload import MODEL, TEMPERATURE


def _work(work: Task) -> None:
    # provider `openai-api`: `BENCH` in the name of the model leads to these
    os.environ.update(BENCH_API_KEY="none", BENCH_BASE_URL=work.base_url, INSPECT_LOG_DIR=str(work.directory / "logs"))
    import inspect_ai  # type: ignore[import-not-found]
    from inspect_ai.dataset import MemoryDataset, Sample  # type: ignore[import-not-found]
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser  # type: ignore[import-not-found]
    from inspect_ai.solver import solver  # type: ignore[import-not-found]

    items = {str(row_num): item for row_num, item in work.items}

    @solver  # type: ignore[untyped-decorator]
    def detect() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            started = time.monotonic()
            state = await generate(state)
            output = state.output
            answer = Answer(
                content=output.completion,
                raw=output.completion,
                prompt_tokens=output.usage.input_tokens,
                completion_tokens=output.usage.output_tokens,
                total_tokens=output.usage.total_tokens,
                finish_reason=output.stop_reason,
                model=output.model,
                system_fingerprint=None,
            )
            work.add(int(state.sample_id), items[str(state.sample_id)], answer, started=started)
            return state

        return solve

    samples = [
        Sample(
            id=str(row_num),
            input=[
                ChatMessageSystem(content=work.system_prompt),
                ChatMessageUser(content=work.user_prompt(item)),
            ],
        )
        for row_num, item in work.items
    ]
    [log] = inspect_ai.eval(
        inspect_ai.Task(dataset=MemoryDataset(samples), solver=detect()),
        model=f"openai-api/bench/{MODEL}",
        temperature=TEMPERATURE,
        max_connections=work.concurrency,
        max_samples=work.concurrency,
        display="none",
        log_samples=False,
        log_realtime=False,
        ctl_server=False,
        score=False,
    )
    work.close()
    if log.status != "success":
        raise SystemExit(f"{log.status}: {log.error.message if log.error else ''}")


if __name__ == "__main__":
    _work(open_task())
