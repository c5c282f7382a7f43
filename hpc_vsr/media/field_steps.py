"""Reads what lies beside a field from its files, step by step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc_vsr.system.errors import InputError


class Steps:
    """The steps of time of one or more files.

    Parameters
    ----------
    datasets : sequence of xarray.Dataset
    files : sequence of Path
    variable : str
        The field.
    frames : range
        The steps in question; step 0 is the first of them.
    time : str
        Its dimension of time, which files of one step may lack.
    """

    def __init__(self, datasets: Sequence, files: Sequence[Path], variable: str, frames: range, time: str):
        self._datasets, self._first, self._frames, self._time = datasets, datasets[0], frames, time
        self._variable, self._path = variable, files[0]
        self._has_time = time in self._first[variable].dims

    def load(self, array: Any) -> Any:
        """Read a variable; `InputError` if that fails."""
        try:
            return array.load()
        except (OSError, RuntimeError, ValueError) as error:  # raised by back ends for damaged data
            raise InputError(f"{self._path}: the data beside {self._variable} cannot be read "
                             f"({str(error).splitlines()[0]}); the file is damaged, copy it again") from None

    def find(self, name: Hashable, dims: tuple) -> tuple[Callable[[int], np.ndarray], bool]:
        """Return a function of the step that reads the values over `dims`, and whether all steps are the same."""
        time = self._time

        def read(step: int) -> np.ndarray:
            dataset, inside = self._place(self._frames[step])
            array = dataset.variables[name]
            array = array.isel({time: inside}) if time in array.dims else array
            return np.asarray(self.load(array).transpose(*dims).values, np.float64)

        if time not in self._first.variables[name].dims:
            return read, True
        first = read(0)
        return read, all(np.array_equal(read(step), first, equal_nan=True) for step in range(1, len(self._frames)))

    def _place(self, frame: int) -> tuple[Any, int]:
        for dataset in self._datasets:
            count = self.length(dataset)
            if frame < count:
                return dataset, frame
            frame -= count
        raise AssertionError(f"frame {frame} is beyond the files")

    def length(self, dataset: Any) -> int:
        return dataset.sizes[self._time] if self._has_time else 1

    def read_bounds(self, name: Hashable, dims: tuple) -> np.ndarray | None:
        """Return (n, 2) or (rows, columns, 4) bounds."""
        array = self._first.variables[name]
        array = array.isel({self._time: 0}) if self._time in array.dims else array
        corner = [dim for dim in array.dims if dim not in dims]
        if len(corner) != 1 or set(array.dims) != {*dims, *corner} or array.sizes[corner[0]] != 2 * len(dims):
            return None
        return np.asarray(self.load(array).transpose(*dims, *corner).values, np.float64)
