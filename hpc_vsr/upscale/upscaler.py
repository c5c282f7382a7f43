"""A trained network that enlarges frames: single windows of a stream, or whole arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.data.splits import WINDOW
from hpc_vsr.data.values import from_unit, to_unit
from hpc_vsr.media.blur import measure_blur
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.precision import autocast, choose_precision
from hpc_vsr.models.settings import TILE, Choice, Precision
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import format_bytes
from hpc_vsr.system.gpus import choose_device, full_float32, ranks_on_gpu
from hpc_vsr.system.memory import free_memory, keep_freed_memory, memory_of_gpu, peak_of_tensors, process_memory
from hpc_vsr.upscale.windows import to_luma, windows

LEAST_SIDE = 8  # LR pixels
SHARP = 0.6  # what `measure_blur` finds in frames without blur
BLUR_TOLERANCE = 0.35  # LR pixels
# factors on the bytes of the tensors, for oneDNN and what malloc cannot reuse; measured: 1.9, and in tiles 3.3 in fp32
# and 2.1 in bf16
SCRATCH, TILED_SCRATCH = 2.0, {"fp32": 4.0}
TILED_SCRATCH_ELSE = 2.5
FRAMES_HELD = 24  # LR and enlarged frames in float32, held by decoder, windows and encoder


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
        1 for luma or a field, 3 for RGB.
    for_video : bool
        Whether the network was trained on grey levels 0..255 and not on the values of a field.
    """

    def __init__(self, trained: Trained, name: str, device: torch.device, choice: Choice, tile: int = TILE):
        self.trained, self.name, self.device, self.choice, self.tile = trained, name, device, choice, tile
        self.scale, self.channels = trained.terms.scale, trained.terms.channels
        self.for_video = trained.terms.for_video
        self._network = trained.network.to(device)
        keep_freed_memory()

    @property
    def precision(self) -> str:
        return self.choice.precision

    def enlarge(self, window: Tensor) -> Tensor:
        """Enlarge the centre frame of a (C, 5, h, w) window of values like those of the training.

        Returns (C, s h, s w) float32 on the CPU.
        """
        terms = self.trained.terms
        with torch.inference_mode(), full_float32(), autocast(self.device, self.precision):
            values = to_unit(window[None].to(self.device), terms.offset, terms.extent)
            out = self._network.upscale(values, self.tile)[0]
            return from_unit(out, terms.offset, terms.extent).cpu()

    def uses_tiles(self, height: int, width: int) -> bool:
        """Return whether frames of that LR size are computed in tiles."""
        return 0 < self.tile < max(height, width)

    def find_reach(self, height: int, width: int) -> int | None:
        """Return how many LR pixels the network sees around an output pixel, if frames of that LR size need tiles.

        This takes a second; one process may find it and send it to the others, which set `reach`.
        """
        return self._network.find_core_reach(self.channels) if self.uses_tiles(height, width) else self.reach

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
        tiled = self.uses_tiles(height, width)
        self.find_reach(height, width)
        lr = (1, self.channels, WINDOW, height, width)

        def enlarge() -> None:
            with torch.inference_mode(), autocast(self.device, self.precision):
                self._network.upscale(torch.empty(lr, device=self.device), self.tile)
        peak = peak_of_tensors(enlarge)
        if self.device.type == "cuda":
            return memory_of_gpu(peak)
        frames = 4 * FRAMES_HELD * self.channels * height * width * (1 + self.scale**2)
        scratch = TILED_SCRATCH.get(self.precision, TILED_SCRATCH_ELSE) if tiled else SCRATCH
        return process_memory() + int(scratch * peak) + frames

    def state_memory(self, height: int, width: int, processes: int = 1) -> str:
        """Return a text such as 'up to 1.2 GB of memory'; print a warning on standard error if less is free."""
        wanted = self.memory(height, width)
        on_gpu = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if on_gpu else free_memory()
        together = wanted * (ranks_on_gpu(processes) if on_gpu else processes)  # for all ranks that share it
        what = "memory of a GPU" if on_gpu else "memory"
        if free is not None and together > free:
            print(f"warning: may take up to {format_bytes(together)} of {what}, and {format_bytes(free)} are "
                  f"free; choose a smaller --tile{' or fewer ranks' * (processes > 1)}", file=sys.stderr)
        return f"up to {format_bytes(wanted)} of {what}{' a rank' * (processes > 1)}"

    def upscale(self, frames: np.ndarray, white: float | None = None, find_cuts: bool | None = None) -> np.ndarray:
        """Enlarge all frames of a video or a field.

        Parameters
        ----------
        frames : (T, h, w) or (T, C, h, w) array
            For a network trained on video: luma or RGB, as uint8, uint16 or float. For one trained on a field: float,
            in the units of that field, without NaN.
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
        pictures = (picture.astype(np.float32) * np.float32(factor) for picture in stacked)
        for index, window in enumerate(windows(pictures, 0, range(len(stacked)), len(stacked),
                                               to_luma if find_cuts else None)):
            frame = self.enlarge(torch.from_numpy(np.stack(window, 1))).numpy() / factor
            if frames.dtype.kind == "u":
                frame = np.rint(np.clip(frame, 0, white))
            out[index] = frame
        return out if frames.ndim == 4 else out[:, 0]

    def _check(self, frames: np.ndarray, white: float | None) -> float | None:
        """Check the frames, and return the value of white, or None for a field."""
        wanted = f"(T, {self.channels}, h, w)" + (" or (T, h, w)" if self.channels == 1 else "")
        if frames.ndim not in (3, 4) or (frames.shape[1] if frames.ndim == 4 else 1) != self.channels:
            raise InputError(f"frames: expected an array {wanted}, found the shape {frames.shape}")
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


def load(run: str | Path, device: Literal["auto", "cpu", "cuda"] = "auto", precision: Precision = "auto",
         tile: int = TILE, local_rank: int = 0) -> Upscaler:
    """Load the trained network of a run folder.

    Parameters
    ----------
    run : path
        Folder of a finished or running training, runs/NAME; its best weights are used.
    device : {"auto", "cpu", "cuda"}
        auto takes a GPU if there is one.
    precision : {"auto", "fp32", "bf16", "fp16"}
        On a GPU auto takes bf16, or fp16 if there is no bf16; on a CPU bf16 or fp32, whichever a measurement of a
        fraction of a second finds faster. bf16 is within 0.02 dB of fp32. fp16 works only on GPUs.
    tile : int
        Side in LR pixels above which a frame is computed in tiles, with the same result; 0 never does.
    local_rank : int
        Number of this process among several on the node, which decides its GPU.

    Raises
    ------
    InputError
        If the folder is no run or has no valid checkpoint, or there is no such device, or it lacks the precision.
    """
    folder = RunFolder(Path(run))
    chosen, trained = choose_device(device, local_rank), load_trained(folder)
    choice = choose_precision(precision, trained.network, trained.terms.channels, chosen,
                              rounding_shows=not trained.terms.for_video and trained.network.skip is None)
    return Upscaler(trained, folder.name, chosen, choice, tile)


def check_size(height: int, width: int, where: str) -> None:
    """Raise `InputError` if frames are too small to be enlarged."""
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"{where}: frames of {width}x{height} are too small; {LEAST_SIDE} pixels a side are wanted")


def warn_of_blur(upscaler: Upscaler, frames: Iterable[np.ndarray], where: str) -> str | None:
    """Return a line if the frames look much sharper or more blurred than those that the network was trained for.

    `frames` are a few (h, w) arrays of luma in grey levels. None if there is nothing to warn of.
    """
    found, terms = measure_blur(frames), upscaler.trained.terms
    expected = terms.sigma / terms.scale
    if found is None or abs(found - max(expected, SHARP)) <= BLUR_TOLERANCE:
        return None
    outcome = "the result will ring at every edge" if found < expected else "the result will stay soft"
    degradation = f"--degradation.sigma {terms.scale * found:.1f}" if found > SHARP else "--degradation.kind BI"
    return (f"warning: {where}: looks blurred by {found:.1f} of its pixels (sigma), and {upscaler.name} was trained "
            f"for {expected:.1f}: {outcome}; train a network on data made with {degradation}")
