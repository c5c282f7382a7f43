"""A trained network that enlarges frames: single windows of a stream, or whole arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.data.values import Numbers, from_unit, to_unit
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.network import Seen
from hpc_vsr.models.precision import autocast, choose_precision
from hpc_vsr.models.settings import TILE, Choice, Precision
from hpc_vsr.models.wrap import unwrap, wrap
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.gpus import choose_device, full_float32
from hpc_vsr.system.memory import keep_freed_memory
from hpc_vsr.upscale.bundled import FOLDER
from hpc_vsr.upscale.memory import choose_workers, estimate_memory
from hpc_vsr.upscale.stream import Frame, enlarge_stream
from hpc_vsr.upscale.windows import to_luma, windows

LEAST_SIDE = 8  # LR pixels
ENOUGH_TO_SHARE = 8  # frames of an array from which several are computed at the same time
Item = TypeVar("Item")


class Upscaler:
    """The network of a run, ready to enlarge frames.

    Parameters
    ----------
    trained : Trained
    name : str
        Name of the run.
    device : torch.device
    choice : Choice
        The precision and the reason for it.
    tile : int
        Side in LR pixels above which a frame is computed in tiles, with the same result; 0 never does.

    Attributes
    ----------
    scale : int
    channels : int
        1 for luma or a field, 3 for RGB, or one for each variable of a field.
    for_video : bool
        Whether the network was trained on grey levels 0..255, of a video or images, and not on the values of a field.
    workers, threads : int
        Windows of a stream that are computed at the same time, and threads for each; see `share_cores`.
    """

    def __init__(self, trained: Trained, name: str, device: torch.device, choice: Choice, tile: int = TILE):
        self.trained, self.name, self.device, self.choice, self.tile = trained, name, device, choice, tile
        self.scale, self.channels = trained.terms.scale, trained.terms.channels
        self.for_video = trained.terms.for_video
        self._network = trained.network.to(device)
        self._cores = torch.get_num_threads()
        self.workers, self.threads = 1, self._cores
        keep_freed_memory()

    def suit(self, sigma: float | None = None, noise: float | None = None) -> None:
        """Enlarge frames of that blur, in pixels of the output, and noise, in grey levels, from now on.

        Raises
        ------
        InputError
            If the network was trained for one blur only, or without noise, or for ranges without these.
        """
        self.trained, reach = self.trained.at(sigma, noise), self.reach
        self._network = self.trained.network.to(self.device)
        self.reach = reach

    @property
    def precision(self) -> str:
        return self.choice.precision

    def enlarge(self, window: Tensor, subtracted: Numbers | None = None, periodic: str = "") -> Tensor:
        """Enlarge the centre frame of a (C, 5, h, w) window of values like those of the training.

        `subtracted` is what was subtracted from the values of a field, of all channels or each; if not given, what it
        was in the training. `periodic` has the axes at whose ends a field goes on at the other side. Returns
        (C, s h, s w) float32 on the CPU.
        """
        with full_float32():
            seen = [self.prepare(frame, subtracted, periodic) for frame in self.frames_seen(window.unbind(1))]
            return self.enlarge_seen(seen, window.shape[-2:], subtracted, periodic)

    def frames_seen(self, window: Sequence[Item]) -> Sequence[Item]:
        """Return the frames in the middle of a window that the network sees: 1, 3 or 5."""
        unseen = (len(window) - self._network.frames) // 2
        return window[unseen : len(window) - unseen]

    def prepare(self, frame: Tensor, subtracted: Numbers | None = None, periodic: str = "") -> Seen:
        """Return a (C, h, w) frame as `enlarge_seen` takes it; the windows of a stream share it."""
        with self._computing():
            values = to_unit(frame[None].to(self.device), self._offset(subtracted), self.trained.terms.extent)
            return self._network.prepare(wrap(values, self.margin(periodic), periodic))

    def enlarge_seen(self, seen: Sequence[Seen], size: Sequence[int], subtracted: Numbers | None = None,
                     periodic: str = "") -> Tensor:
        """Do what `enlarge` does, with prepared frames of the LR size (h, w).

        Several threads may call this and `prepare`, inside `full_float32`, which holds for all threads.
        """
        with self._computing():
            out = unwrap(self._network.upscale_seen(seen, self.tile), self.margin(periodic), periodic, size)
            offset = 0.0 if self.trained.predicts_error else self._offset(subtracted)
            return from_unit(out, offset, self.trained.terms.extent)[0].cpu()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield

    def _offset(self, subtracted: Numbers | None) -> Numbers:
        terms = self.trained.terms
        return terms.offset if subtracted is None else terms.offset_after(subtracted)

    def uses_tiles(self, height: int, width: int) -> bool:
        """Return whether frames of that LR size are computed in tiles."""
        return 0 < self.tile < max(height, width)

    def margin(self, periodic: str) -> int:
        """Return the LR pixels of the other side that the network sees of periodic frames; 0 if they are not."""
        return self._network.find_wrap(self.channels) if periodic else 0

    def size_seen(self, height: int, width: int, periodic: str) -> tuple[int, int]:
        """Return the LR size of frames with what the network sees of their other side."""
        margin = 2 * self.margin(periodic)
        return height + margin * ("y" in periodic), width + margin * ("x" in periodic)

    def find_reach(self, height: int, width: int, periodic: str = "") -> int | None:
        """Return how many LR pixels the network sees around an output pixel, if frames of that LR size need tiles.

        Periodic frames need it, too. This takes a second; one process may find it and send it to the others, which set
        `reach`.
        """
        is_needed = self.uses_tiles(height, width) or periodic
        return self._network.find_core_reach(self.channels) if is_needed else self.reach

    @property
    def reach(self) -> int | None:
        return self._network.core_reach

    @reach.setter
    def reach(self, reach: int | None) -> None:
        self._network.core_reach = reach

    def memory(self, height: int, width: int) -> int:
        """Return the most bytes of GPU or main memory that a process takes to enlarge frames of that LR size.

        They are found by running the network on tensors without values. Above `tile` only a few whole frames add to it.
        """
        return estimate_memory(self, height, width).of(self.workers)

    def share_cores(self, height: int, width: int, processes: int = 1, held: int = 0) -> None:
        """Choose the number of `workers`: one for each core, or as many as fit into the free memory.

        `processes` share the node's memory, and each holds `held` bytes of what it has read.
        """
        self.workers = choose_workers(self, height, width, self._cores, processes, held)
        self.threads = self._cores // self.workers

    def upscale(self, frames: np.ndarray, white: float | None = None, find_cuts: bool | None = None) -> np.ndarray:
        """Enlarge all frames of a video or a field.

        Parameters
        ----------
        frames : (T, h, w) or (T, C, h, w) array
            For a network trained on video: luma or RGB, as uint8, uint16 or float. For one trained on a field: float,
            in the units of that field, without NaN; C variables are in the order of the training.
        white : float, optional
            The value of white, for a network trained on video: 255 for uint8, 65535 for uint16, 1 for float if not
            given. Black is 0.
        find_cuts : bool, optional
            Whether to keep frames before a scene cut apart from those after it; if not given, only for videos.

        Returns
        -------
        array
            The same number of frames at `scale` times the size, with the same type, layout and range of values;
            integers are rounded and clipped to 0..white. At both ends the nearest frame stands in for those beyond.

        Raises
        ------
        InputError
            If the array has another shape or type, or its values are out of range.

        Examples
        --------
        >>> import hpc_vsr, imageio.v3 as iio                                   # doctest: +SKIP
        >>> network = hpc_vsr.load("runs/delta")                                # doctest: +SKIP
        >>> luma = iio.imread("in.mp4", plugin="pyav", format="gray")           # doctest: +SKIP
        >>> network.upscale(luma).shape                                         # doctest: +SKIP
        (300, 600, 900)
        """
        frames = np.asarray(frames)
        white = self._check(frames, white)
        stacked = frames if frames.ndim == 4 else frames[:, None]
        # the network of a video computes in grey levels 0..255, that of a field in the field's units
        factor = 1.0 if white is None else GREY / white
        find_cuts = self.for_video if find_cuts is None else find_cuts
        shape = (*stacked.shape[:2], *(self.scale * side for side in stacked.shape[2:]))
        out = np.empty(shape, frames.dtype)
        # of a field with a large mean, that mean is not in the values that the network sees
        mean = self.trained.terms.was_subtracted
        if isinstance(mean, list):  # of each variable
            mean = np.array(mean)[:, None, None]
        has_mean = bool(np.any(mean))
        pictures = (Frame((picture - mean if has_mean else picture).astype(np.float32) * np.float32(factor))
                    for picture in stacked)

        def finish(enlarged: np.ndarray, _frame: Frame) -> np.ndarray:
            frame = enlarged / factor
            if frames.dtype.kind == "u":
                frame = np.rint(np.clip(frame, 0, white))
            return frame.astype(np.float64) + mean if has_mean else frame
        if len(stacked) >= ENOUGH_TO_SHARE:
            self.share_cores(*stacked.shape[2:])
        luma_of = (lambda frame: to_luma(frame.values)) if find_cuts else None
        for index, frame in enumerate(enlarge_stream(windows(pictures, 0, range(len(stacked)), len(stacked), luma_of),
                                                     self, finish)):
            out[index] = frame
        return out if frames.ndim == 4 else out[:, 0]

    def _check(self, frames: np.ndarray, white: float | None) -> float | None:
        """Check the frames, and return the value of white, or None for a field."""
        expected = f"(T, {self.channels}, h, w)" + (" or (T, h, w)" if self.channels == 1 else "")
        if frames.ndim not in (3, 4) or (frames.shape[1] if frames.ndim == 4 else 1) != self.channels:
            raise InputError(f"frames: expected an array {expected}, found the shape {frames.shape}")
        check_size(*frames.shape[-2:], "frames")
        if frames.dtype.kind not in "uf" or frames.dtype.itemsize > 8:
            raise InputError(f"frames: expected uint8, uint16 or float values, found {frames.dtype}")
        if frames.dtype.kind == "f" and not np.isfinite(frames).all():
            raise InputError("frames: have values that are NaN or infinite; fill them first")
        if not self.for_video:
            if white is not None or frames.dtype.kind != "f":
                raise InputError(f"{self.name}: was trained on a field; give float values in its units, without white")
            return None
        if white is None:
            white = float(np.iinfo(frames.dtype).max) if frames.dtype.kind == "u" else 1.0
        if frames.size and float(frames.max()) > 1.5 * white:
            raise InputError(f"frames: have values up to {float(frames.max()):g} where white is {white:g}; "
                             "give the value of white, such as white=255")
        return white


def load(run: str | Path | None = None, device: Literal["auto", "cpu", "cuda"] = "auto", precision: Precision = "auto",
         tile: int = TILE, local_rank: int = 0, sigma: float | None = None, noise: float | None = None) -> Upscaler:
    """Load the trained network of a run folder.

    Parameters
    ----------
    run : path, optional
        Folder of a finished or running training, runs/NAME; its best weights are used. If not given, the network that
        comes with hpc-vsr: 2 times, luma, blurs of 0 to 4 pixels of the result, noise of 0 to 4 grey levels.
    device : {"auto", "cpu", "cuda"}
        auto takes a GPU if there is one.
    precision : {"auto", "fp32", "bf16", "fp16"}
        On a GPU auto takes bf16, or fp16 if there is no bf16; on a CPU bf16 or fp32, whichever a measurement of a
        fraction of a second finds faster. bf16 is within 0.02 dB of fp32. fp16 works only on GPUs.
    tile : int
        Side in LR pixels above which a frame is computed in tiles, with the same result; 0 never does.
    local_rank : int
        Number of this process among several on the node, which decides its GPU.
    sigma : float, optional
        Blur of the frames in pixels of the output, for a network that was trained for a range of blurs; that of its
        training data if not given.
    noise : float, optional
        Noise of the frames in grey levels, for a network that was trained for noisy recordings; none if not given.

    Raises
    ------
    InputError
        If the folder is no run or has no valid checkpoint, or there is no such device, or it lacks the precision, or
        the network was not trained for this blur or noise.
    """
    folder = RunFolder(FOLDER if run is None else Path(run))
    chosen, trained = choose_device(device, local_rank), load_trained(folder)
    choice = choose_precision(precision, trained.network, trained.terms.channels, chosen,
                              rounding_shows=trained.terms.rounding_shows and trained.network.skip is None)
    upscaler = Upscaler(trained, folder.name, chosen, choice, tile)
    if sigma is not None or noise is not None:
        upscaler.suit(sigma, noise)
    return upscaler


def check_size(height: int, width: int, where: str) -> None:
    """Raise `InputError` if frames are too small to be enlarged."""
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"{where}: frames of {width}x{height} are too small; each side needs {LEAST_SIDE} pixels")
