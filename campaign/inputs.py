"""Made input: a clip, images of it, and a field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sandbox import Outcome, call


def must(done: Outcome) -> Outcome:
    if done.status != 0:
        raise SystemExit(f"the undisturbed run failed with status {done.status}:\n{done.text}")
    return done


def write_images(folder: Path, clip: Path, num_frames: int) -> Path:
    """The first frames of a clip as PNG and TIFF."""

    def write() -> None:
        import cv2

        from hpc_vsr.media.video_source import open_video

        folder.mkdir()
        for index, (frame, _) in enumerate(open_video(clip, "rgb").read(0, num_frames)):
            cv2.imwrite(str(folder / f"{index}.{('png', 'tif')[index % 2]}"), frame.transpose(1, 2, 0))

    must(call(write, folder.parent))
    return folder


def write_field(path: Path, num_frames: int = 24, kind: str = "NETCDF4", size: tuple[int, int] = (32, 40)) -> Path:
    """A wave that moves, with some missing values; written in a process of its own, for netCDF4 has threads."""

    def write() -> None:
        import xarray as xr

        height, width = size
        rows, columns = np.mgrid[:height, :width]
        values = np.stack([np.sin((columns + 1.3 * t) / 3) * np.cos(rows / 4) for t in range(num_frames)]).astype("f4")
        values[3, :2, :2] = np.nan
        array = xr.DataArray(values, dims=("time", "y", "x"), name="speed", attrs={"units": "m s-1"},
                             coords={"time": ("time", np.arange(num_frames), {"units": "days since 2000-01-01"}),
                                     "y": np.arange(height) * 2.0, "x": np.arange(width) * 2.0})
        array.to_netcdf(path, format=kind)

    must(call(write, path.parent))
    return path
