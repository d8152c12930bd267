"""AsyncOpenAI and a semaphore, a task for every narrative: the script that most people write first."""

from __future__ import annotations

import asyncio
import time

from bench.floor import Answer, Row
from bench.peers.common import Task, open_task
from bench.workload import MODEL, TEMPERATURE


async def _work(task: Task) -> None:
    from openai import AsyncOpenAI  # type: ignore[import-not-found]

    async def detect(row_num: int, item: Row) -> None:
        async with semaphore:
            started = time.monotonic()
            completion = await client.chat.completions.create(
                model=MODEL,
                messages=[
                    {"role": "system", "content": task.system_prompt},
                    {"role": "user", "content": task.user_prompt(item)},
                ],
                temperature=TEMPERATURE,
            )
        choice, usage = completion.choices[0], completion.usage
        content = choice.message.content
        task.add(
            row_num,
            item,
            Answer(
                content=content,
                raw=content,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
                finish_reason=choice.finish_reason,
                model=completion.model,
                system_fingerprint=completion.system_fingerprint,
            ),
            started=started,
        )

    semaphore = asyncio.Semaphore(task.concurrency)
    async with AsyncOpenAI(base_url=task.base_url) as client:
        await asyncio.gather(*(detect(row_num, item) for row_num, item in task.items))
    task.close()


if __name__ == "__main__":
    asyncio.run(_work(open_task()))
