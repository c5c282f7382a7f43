"""Preprocessing as it is usually written: one process, OpenCV's reader, one sample after the other.

It reads every frame in BGR, takes Y, blurs and halves it, and stores stacks of five LR frames with the centre HR frame.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np

WINDOW, SIGMA = 5, 3.0


def frames(video: Path) -> Iterator[np.ndarray]:
    """Yield Y of every frame, (H, W) uint8."""
    capture = cv2.VideoCapture(str(video))
    while True:
        there, bgr = capture.read()
        if not there:
            return
        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)[:, :, 0]


def degraded(video: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (lr, hr) of every frame."""
    for hr in frames(video):
        blurred = cv2.GaussianBlur(hr, (0, 0), SIGMA)
        yield cv2.resize(blurred, (hr.shape[1] // 2, hr.shape[0] // 2), interpolation=cv2.INTER_CUBIC), hr


def write_stacks(video: Path, out: Path, compression: str | None) -> None:
    """Write one HDF5 file that grows sample by sample."""
    recent: collections.deque = collections.deque(maxlen=WINDOW)
    with h5py.File(out / "stacks.h5", "w") as file:
        for lr, hr in degraded(video):
            recent.append((lr, hr))
            if len(recent) < WINDOW:
                continue
            stack, centre = np.stack([lr for lr, _ in recent]), recent[WINDOW // 2][1]
            if "lr" not in file:
                for name, sample in (("lr", stack), ("hr", centre)):
                    file.create_dataset(name, (0, *sample.shape), "uint8", maxshape=(None, *sample.shape),
                                        chunks=(1, *sample.shape), compression=compression)
            for name, sample in (("lr", stack), ("hr", centre)):
                file[name].resize(len(file[name]) + 1, axis=0)
                file[name][-1] = sample


def write_pictures(video: Path, out: Path) -> None:
    """Write a PNG for every LR and every HR frame."""
    for name in ("lr", "hr"):
        (out / name).mkdir(parents=True)
    for index, pair in enumerate(degraded(video)):
        for name, frame in zip(("lr", "hr"), pair, strict=True):
            cv2.imwrite(str(out / name / f"{index:06d}.png"), frame)


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "gzip HDF5": lambda video, out: write_stacks(video, out, "gzip"),
    "plain HDF5": lambda video, out: write_stacks(video, out, None),
    "PNG": write_pictures,
}
