"""Lets the libraries that write a field ask for its frames in their order, for all variables of a frame together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array
import numpy as np
from dask.core import flatten, get_dependencies
from dask.optimization import cull


class InOrder:
    """Frames of one or more variables as lazy arrays; a frame is made when the first of its variables is written.

    Parameters
    ----------
    frame : callable
        Makes the frame of a number: an (h, w) array, or a list of one for each variable.
    num_variables : int
    """

    def __init__(self, frame: Callable[[int], np.ndarray | list[np.ndarray]], num_variables: int):
        self._frame, self._num_variables = frame, num_variables
        self._made: dict[int, dict[int, np.ndarray]] = {}  # by number and variable, until it is written

    def lazy(self, frames: range, channel: int, size: tuple[int, int], encoding: dict) -> dask.array.Array:
        """Return (T, h, w) of a variable, a chunk for each frame, in the type of the encoding."""
        dtype, fill = encoding["dtype"], encoding["_FillValue"]
        return dask.array.map_blocks(
            lambda block: _beside_fill(self._take(int(block[0, 0, 0]), channel), dtype, fill)[None],
            dask.array.from_array(np.array(frames)[:, None, None], chunks=(1, 1, 1)),
            dtype=dtype, chunks=((1,) * len(frames), (size[0],), (size[1],)))

    def _take(self, number: int, channel: int) -> np.ndarray:
        if number not in self._made:
            made = self._frame(number)
            self._made[number] = dict(enumerate(made if self._num_variables > 1 else [made]))
        plane = self._made[number].pop(channel)
        if not self._made[number]:
            del self._made[number]
        return np.asarray(plane)


def frame_by_frame(graph: Any, keys: Sequence, **_options: Any) -> list[None]:
    """Compute a graph of dask that writes arrays with a chunk for each frame, in the order of the frames.

    It is a scheduler. Dask's own take the chunks of a variable in the order of their names as text, and backwards, so
    that nearly all frames would have to be held until they are written.
    """
    tasks = dict(graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph)
    wanted = list(flatten(keys if isinstance(keys, list) else [keys]))
    # a chunk is written by a task ("name", its place along each dimension); the keys stand for whole variables
    chunks = {task for key in wanted for task in ([key] if isinstance(key, tuple) else get_dependencies(tasks, key))}
    for key in sorted(chunks, key=lambda key: max(key[1:])):
        dask.get(cull(tasks, [key])[0], key)
    return [None] * len(keys)


def _beside_fill(values: np.ndarray, dtype: np.dtype, fill: np.floating) -> np.ndarray:
    """Return the values in the type of the output; one that equals the fill value moves to the next number."""
    values = values.astype(dtype)
    return np.where(values == fill, np.nextafter(fill, dtype.type(0)), values) if (values == fill).any() else values
