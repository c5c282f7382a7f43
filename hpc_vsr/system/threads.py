"""Threads that work ahead: one that reads, and several that compute; results come in order, from bounded memory."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
CHECK_SECONDS = 0.1  # after which a reader that waits for room looks whether it is to stop


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the items of an iterable, which a thread of its own makes, at most `depth` ahead.

    What the iterable raises is raised here, in its place. If this iterator is closed, the thread closes the iterable
    and ends.
    """
    made: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put((kind, item), timeout=CHECK_SECONDS)
                return True
        return False

    def read() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        stopped.set()
        reader.join()


class Workers:
    """Threads that compute side by side, each with its share of this process's cores.

    Side by side, one thread each, they use the cores better than together on one item, where all wait for the slowest
    after every layer (docs/performance.md). It is a context manager, inside which `submit` may be called.

    Parameters
    ----------
    count : int
    threads : int
        Threads with which torch computes in each; with one worker and the threads of this process nothing changes.
    """

    def __init__(self, count: int, threads: int):
        self.count, self.threads = count, threads

    def __enter__(self) -> Workers:
        self._before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.count, "worker", torch.set_num_threads, (self.threads,))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)  # the pool has changed what new threads of this process begin with

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Begin ``function(*arguments)``; calls begin in the order of their submission, so one may wait for others."""
        return self._pool.submit(function, *arguments)


def in_order(futures: Iterable[Future[Result]], ahead: int) -> Iterator[Result]:
    """Yield the results in order, while up to `ahead` further ones are in work."""
    waiting: deque[Future[Result]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
