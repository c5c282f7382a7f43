"""A field of two variables that have little in common but their grid: a packed velocity and a pressure in doubles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray
from stages import run_stage
from trainings import train_tiny

HEIGHT, WIDTH = 32, 40
MEAN = 101325.0  # of the pressure, in which float32 would leave a few levels


def velocity_and_pressure(num_frames: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, h, w) float64 each, NaN where there is none: land for both, and some cells of only one of them."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    steps = np.arange(num_frames)[:, None, None]
    random = np.random.default_rng(0)
    waves = [sum(np.sin((random.integers(1, 9) * rows + random.integers(1, 9) * columns + steps) / 7 + phase)
                 for phase in range(4)) for _ in range(2)]
    u, p = np.rint(100 * waves[0]) / 100, MEAN + 0.01 * waves[1]
    u[:, :3, :4], p[:, :3, :4] = np.nan, np.nan
    u[:, 10:12, 20:23], p[4, 25, 30] = np.nan, np.nan
    return u, p


def write_flow(path: Path, u: np.ndarray, p: np.ndarray, **attributes) -> Path:
    """Write the two as a NetCDF file with positions in metres, hours, and a map projection."""
    dims, hours = ("time", "y", "x"), {"units": "hours since 2000-01-01"}
    dataset = xarray.Dataset(
        {"u": (dims, u, {"units": "m s-1", "long_name": "eastward velocity", "grid_mapping": "crs", **attributes}),
         "p": (dims, p, {"units": "Pa", "standard_name": "surface_air_pressure"}),
         "crs": ((), 0, {"grid_mapping_name": "polar_stereographic"})},
        {"time": ("time", np.arange(len(u)), hours), "y": ("y", 100.0 * np.arange(HEIGHT), {"units": "m"}),
         "x": ("x", 100.0 * np.arange(WIDTH), {"units": "m"})})
    dataset["u"].encoding = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768}
    dataset["p"].encoding = {"_FillValue": -999.0}
    dataset.to_netcdf(path)
    return path


def train_on_flow(folder: Path, field: Path, variable: str) -> tuple[Path, Path, str]:
    """Return the data set of a file, a run on it that is measured with all frames as pictures, and the table."""
    data, run = folder / f"data_{variable}", folder / f"run_{variable}"
    for done in (run_stage("preprocess", "--field", field, "--variable", variable, "--shards", 3, "--out", data),
                 train_tiny(data, run, "--evaluate.pictures", 20), run_stage("evaluate", "--run", run)):
        assert done.returncode == 0, done.stderr
    return data, run, done.stdout
