"""Says how what is beside an enlarged field is stored: types, fill values, clocks and limits of valid values."""

from __future__ import annotations

from typing import Any

import numpy as np

KEPT_ENCODING = ("dtype", "_FillValue", "missing_value")  # of floats; the chunks are chosen anew
CLOCK = ("units", "calendar")
PACKING = ("scale_factor", "add_offset")
LIMITS = ("valid_min", "valid_max", "valid_range")


def common_encoding(encodings: list[dict]) -> dict:
    """Return how a variable over time is stored: as in the first file.

    If the files differ, only the units and calendar of its times are kept.
    """
    kept = [{key: encoding[key] for key in (*KEPT_ENCODING, *PACKING) if key in encoding} for encoding in encodings]
    clock = {key: encodings[0][key] for key in CLOCK if key in encodings[0]}
    return {**clock, **(kept[0] if all(str(one) == str(kept[0]) for one in kept) else {})}


def kept_encoding(array) -> dict:
    """Return how floats are stored; empty for integers and packed values, whose range new values may leave."""
    encoding = {key: value for key, value in array.encoding.items() if key in KEPT_ENCODING}
    dtype = np.dtype(encoding.get("dtype", array.dtype))
    if dtype.kind != "f" or any(key in array.encoding for key in PACKING):
        return {}
    return {**encoding, "dtype": float_of_netcdf(dtype)}


def float_of_netcdf(dtype: np.dtype) -> np.dtype:
    """Return the float of NetCDF that holds a float of any size: HDF5 also has some of 2 and of 16 bytes."""
    if dtype.itemsize in (4, 8):
        return dtype
    return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)


def limits_of(array, values: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    """Return the limits that a coordinate's attributes name, for its new values, and those that these pass.

    Limits of packed values are in packed units; the new values are not packed.
    """
    limits, dropped = {}, []
    lowest, highest = float(np.nanmin(values)), float(np.nanmax(values))
    dtype = np.float64 if any(key in array.encoding for key in PACKING) else None
    for key in LIMITS:
        if key not in array.attrs:
            continue
        try:
            given = np.asarray(array.attrs[key], np.float64)
        except (TypeError, ValueError):
            dropped.append(key)
            continue
        given = given * array.encoding.get("scale_factor", 1.0) + array.encoding.get("add_offset", 0.0)
        is_inside = (key == "valid_max" or given.min() <= lowest) and (key == "valid_min" or highest <= given.max())
        if is_inside:
            limits[key] = given.astype(dtype)[()] if dtype else array.attrs[key]
        else:
            dropped.append(key)
    if "actual_range" in array.attrs:
        old = np.asarray(array.attrs["actual_range"])
        if old.shape == (2,) and old.dtype.kind in "fiu":
            new = [lowest, highest] if old[0] <= old[1] else [highest, lowest]
            limits["actual_range"] = np.asarray(new, old.dtype if old.dtype.kind == "f" else np.float64)
        else:
            dropped.append("actual_range")
    return limits, dropped
