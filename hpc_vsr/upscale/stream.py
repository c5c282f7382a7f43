"""Enlarges a stream of frames: each LR frame is prepared once, and several windows are computed at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.data.values import Numbers
from hpc_vsr.models.network import Seen
from hpc_vsr.system.gpus import full_float32
from hpc_vsr.system.threads import Workers, in_order

if TYPE_CHECKING:
    from hpc_vsr.upscale.upscaler import Upscaler

READ_AHEAD = 4  # windows that are read while the workers are busy
Result = TypeVar("Result")
AHEAD = 2  # windows in work beside those of the workers, so that no worker waits while a result is written


@dataclass(frozen=True, eq=False)
class Frame:
    """An LR frame of a stream.

    Attributes
    ----------
    values : (C, h, w) float32 array
        Values like those of the training.
    rest : object
        What else is needed to write its enlargement, such as chroma.
    """

    values: np.ndarray
    rest: Any = None


def enlarge_stream(windows: Iterable[Sequence[Frame]], upscaler: Upscaler,
                   finish: Callable[[np.ndarray, Frame], Result], subtracted: Numbers | None = None,
                   periodic: str = "") -> Iterator[Result]:
    """Yield ``finish(enlarged, frame)`` of the centre frame of each window, in order.

    Parameters
    ----------
    windows : iterable
        Windows of five frames; those that overlap share their `Frame` objects.
    upscaler : Upscaler
        Its `workers` compute side by side. Their number does not change the result.
    finish : callable
        Takes the (C, s h, s w) float32 enlargement and the LR frame. It is called in the workers.
    subtracted, periodic : float or list of float, str
        As for `Upscaler.enlarge`.
    """
    def prepare(frame: Frame) -> Seen:
        return upscaler.prepare(torch.from_numpy(frame.values), subtracted, periodic)

    def enlarge(centre: Frame, seen: Sequence[Future[Seen]]) -> Result:
        out: Tensor = upscaler.enlarge_seen([future.result() for future in seen], centre.values.shape[-2:], subtracted,
                                            periodic)
        return finish(out.numpy(), centre)

    def submit(workers: Workers) -> Iterator[Future[Result]]:
        prepared: dict[Frame, Future[Seen]] = {}
        for window in windows:
            shown = upscaler.frames_seen(window)
            # frames that this window does not show are forgotten: no later one shows them
            prepared = {frame: prepared.get(frame) or workers.submit(prepare, frame) for frame in dict.fromkeys(shown)}
            yield workers.submit(enlarge, shown[len(shown) // 2], [prepared[frame] for frame in shown])

    with full_float32(), Workers(upscaler.workers, upscaler.threads) as workers:
        yield from in_order(submit(workers), upscaler.workers + AHEAD)
