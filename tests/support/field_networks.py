"""Networks for fields that were never trained, ready to enlarge, and fields to give them."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import torch

from hpc_vsr.models.settings import Choice, ModelSettings
from hpc_vsr.runs.trained import DataTerms, Trained
from hpc_vsr.upscale.upscaler import Upscaler


def untrained(settings: ModelSettings, offset: float | list[float] = 0.0, extent: float | list[float] = 1.0,
              scale: int = 2, sigma: float = 0.0, channels: int = 1, **terms) -> Upscaler:
    """A network as it starts; with a skip it gives the enlargement of its skip."""
    torch.manual_seed(0)
    terms = DataTerms(channels, scale, sigma, 1e-2, offset, extent, "", False, **terms)
    network = terms.build(settings).eval().requires_grad_(False)
    trained = Trained(network, settings, terms, 0, "untrained", "0" * 64)
    return Upscaler(trained, "untrained", torch.device("cpu"), Choice("fp32", "test", "cpu"))


def write_netcdf(path: Path, values: np.ndarray, attributes: dict | None = None, name: str = "v", **options) -> Path:
    """Write (time, y, x) values as they are, with attributes of any type; the fill value is one of them."""
    with netCDF4.Dataset(path, "w") as file:
        for dimension, size in zip(("time", "y", "x"), values.shape, strict=True):
            file.createDimension(dimension, size)
        fill = (attributes or {}).get("_FillValue")
        variable = file.createVariable(name, values.dtype, ("time", "y", "x"), fill_value=fill, **options)
        variable.set_auto_maskandscale(False)
        for key, value in (attributes or {}).items():
            if key != "_FillValue":  # which the library wants at once
                variable.setncattr(key, value)
        variable[:] = values
    return path
