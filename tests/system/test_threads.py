"""Threads that work ahead keep the order, hold a bounded number of items, pass errors on, and end."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from hpc_vsr.system.threads import Workers, in_order, read_ahead


def no_thread_is_left(name: str) -> bool:
    return not any(thread.name.startswith(name) for thread in threading.enumerate())


def test_items_are_read_ahead_in_order_and_at_most_so_many():
    read = []

    def items():
        for number in range(20):
            read.append(number)
            yield number

    taken = []
    for item in read_ahead(items(), 3):
        time.sleep(0.002)
        taken.append(item)
        assert len(read) <= len(taken) + 4  # three wait, and one is in the reader's hands
    assert taken == list(range(20))
    assert no_thread_is_left("reader")


def test_what_the_reader_meets_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("frame 2 is damaged")

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="frame 2 is damaged"):
        next(ahead)
    assert no_thread_is_left("reader")


def test_closed_before_the_end_the_reader_closes_what_it_reads():
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set() and no_thread_is_left("reader")


def test_workers_compute_side_by_side_and_results_come_in_order():
    together = threading.Barrier(2, timeout=30)

    def work(number: int) -> tuple[int, int]:
        together.wait()  # fails unless two are in work at the same time
        return number, torch.get_num_threads()

    before = torch.get_num_threads()
    with Workers(2, 1) as workers:
        results = list(in_order((workers.submit(work, number) for number in range(8)), 2))
    assert results == [(number, 1) for number in range(8)]
    assert torch.get_num_threads() == before


def test_a_worker_may_wait_for_what_was_submitted_before():
    with Workers(1, 1) as workers:
        first = workers.submit(lambda: 20)
        assert workers.submit(lambda: first.result() + 1).result(timeout=30) == 21


def test_the_error_of_a_worker_is_raised_in_the_place_of_its_result():
    def work(number: int) -> int:
        return 12 // number

    with Workers(2, 1) as workers, pytest.raises(ZeroDivisionError):
        list(in_order((workers.submit(work, number) for number in (1, 0, 2, 3)), 2))
    assert no_thread_is_left("worker")
