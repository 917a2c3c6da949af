"""Waiting on an asyncio loop for futures of an executor, and for transactions."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

Awaited = TypeVar("Awaited", bound=Future[Any])


async def as_completed(
    futures: Iterable[Awaited], *, timeout: float | None = None
) -> AsyncIterator[Awaited]:
    """Yield each of these futures or transactions, itself, when it has ended, the first first.

    ``async for future in as_completed(futures): print(future.result())``; of a transaction say
    ``await txn``, which opens large results beside the loop. Raises ``TimeoutError`` if they have
    not all ended ``timeout`` seconds after the first is asked for; what runs goes on.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Awaited] = asyncio.Queue()

    def tell(future: Any) -> None:
        try:
            loop.call_soon_threadsafe(ended.put_nowait, future)
        except RuntimeError:
            pass  # whoever waited has given up: the loop is closed

    different = dict.fromkeys(futures)
    for future in different:
        future.add_done_callback(tell)
    left = len(different)
    del different
    async with asyncio.timeout(timeout) as limit:
        end = limit.when()
    for _ in range(left):
        async with asyncio.timeout_at(end):
            future = await ended.get()
        yield future
