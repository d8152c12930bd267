"""LangChain: `ChatOpenAI.abatch` with `max_concurrency`, rows stored when it returns."""

from __future__ import annotations

import asyncio
import time

from bench.floor import Answer
from bench.peers.common import Task, open_task
from bench.workload import MODEL, TEMPERATURE


async def _work(task: Task) -> None:
    from langchain_core.messages import HumanMessage, SystemMessage  # type: ignore[import-not-found]
    from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]

    model = ChatOpenAI(model=MODEL, base_url=task.base_url, temperature=TEMPERATURE)
    prompts = [[SystemMessage(task.system_prompt), HumanMessage(task.user_prompt(item))] for _, item in task.items]
    started = time.monotonic()
    messages = await model.abatch(prompts, config={"max_concurrency": task.concurrency})
    for (row_num, item), message in zip(task.items, messages, strict=True):
        about, usage = message.response_metadata, message.usage_metadata
        answer = Answer(
            content=message.content,
            raw=message.content,
            prompt_tokens=usage["input_tokens"],
            completion_tokens=usage["output_tokens"],
            total_tokens=usage["total_tokens"],
            finish_reason=about["finish_reason"],
            model=about["model_name"],
            system_fingerprint=about.get("system_fingerprint"),
        )
        task.add(row_num, item, answer, started=started)
    task.close()


if __name__ == "__main__":
    asyncio.run(_work(open_task()))
