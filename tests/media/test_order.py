"""Names of files: the order of the numbers in them, and the numbers that are missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hpc_vsr.media.numbering import find_gaps
from hpc_vsr.media.order import natural_order, order_files

IN_ORDER = {
    "whole numbers": [f"frame{number}.png" for number in (1, 9, 10, 100)],
    "decimals as %g writes them": [f"vort_{0.05 * step:.4g}.png" for step in range(1, 25)],
    "decimals as str writes them": [f"v{step / 4}.png" for step in range(0, 60)],
    "decimals of a fixed width": [f"t{step / 100:.2f}.png" for step in range(95, 130)],
    "versions": [f"v{major}.{minor}.png" for major in (1, 2) for minor in range(12)],
    "three numbers": ["run1.2.9.tif", "run1.2.10.tif", "run1.10.1.tif", "run2.1.1.tif"],
    "times of day with points": ["a12.30.05.png", "a12.30.15.png", "a12.31.00.png"],
    "exponents": ["nu_1e-05.png", "nu_5e-05.png", "nu_0.0001.png", "nu_0.001.png", "nu_0.5.png", "nu_1e+02.png"],
    "seasons and episodes": ["s01e02_9.png", "s01e02_10.png", "s01e10_1.png", "s02e01_1.png"],
    "signs": [f"t{number}.png" for number in range(-12, 13)],
    "signs after an underscore": [f"z_{number}.png" for number in (-20, -10, -5)],
    "signs of decimals": [f"x{number / 10:g}.png" for number in range(-12, 13)],
    "dashes": [f"frame-{number}.png" for number in range(1, 12)],
    "dates": ["2020-01-31_9.png", "2020-02-01_9.png", "2020-02-01_10.png"],
    "no numbers": ["a.png", "ab.png", "b.png"],
}


@pytest.mark.parametrize("kind", IN_ORDER)
def test_files_are_in_the_order_of_their_numbers(kind):
    names = IN_ORDER[kind]
    mixed = random.Random(0).sample(names, len(names))
    assert [path.name for path in natural_order(map(Path, mixed))] == names


def test_a_doubt_is_told_with_two_names():
    order = order_files([Path(f"v{name}.png") for name in ("1.1", "1.2", "1.15", "1.3", "1.25")])
    assert [path.name for path in order.paths] == [f"v{name}.png" for name in ("1.1", "1.15", "1.2", "1.25", "1.3")]
    assert order.doubt == "v1.15.png before v1.2.png"
    assert not order_files([Path(f"v{name}.png") for name in ("0.05", "0.1", "0.15")]).doubt


def places(names) -> tuple[list[int], list[int], bool]:
    """Gaps, starts of series, and whether the names are regular; of names that are in order."""
    order = order_files(map(Path, names))
    assert [path.name for path in order.paths] == list(names)
    found = find_gaps(order.names)
    return found.gaps, found.starts, found.is_regular


def test_missing_numbers_are_found():
    assert places([f"f_{n:04d}.png" for n in (*range(12), *range(30, 42))]) == ([12], [], True)
    assert places([f"f{n}.png" for n in (*range(0, 200, 10), *range(220, 400, 10))]) == ([20], [], True)
    names = [f"v_{0.05 * step:.4g}.png" for step in range(1, 40) if step not in (7, 8, 20)]
    assert places(names) == ([6, 17], [], True)
    assert places([f"run3_f{n}.png" for n in (1, 2, 3, 4, 6, 7)]) == ([4], [], True)


def test_rounded_and_irregular_numbers_are_no_gaps():
    assert places([f"t{step / 3:.3g}.png" for step in range(1, 30)]) == ([], [], True)
    assert places([f"t{number}.png" for number in (0, 3, 4, 10, 11, 19, 31, 33)]) == ([], [], False)
    assert places(["ape.png", "bear.png", "cat.png", "dog.png"]) == ([], [], False)


def test_a_new_hour_and_a_new_day_are_no_gaps():
    at = [f"cam_{hour:02d}{minute:02d}00.png" for hour in (22, 23) for minute in range(0, 60, 5)]
    assert places(at) == ([], [], True)
    days = [f"cam_{day}_{hour:02d}30.png" for day in (20200131, 20200201) for hour in range(0, 24)]
    assert places(days) == ([], [], True)
    assert places(days[:30] + days[33:]) == ([30], [], True)


def test_several_series_are_kept_apart():
    assert places([f"{eye}_{n:02d}.png" for eye in ("left", "right") for n in range(8)]) == ([], [8], True)
    assert places([f"run{run}_t{n}.png" for run in (1, 2, 3) for n in range(9)]) == ([], [9, 18], True)
    numbered = [f"shot{n}_x{n * 0.5}.png" for n in range(12)]
    assert places(numbered) == ([], [], True)
