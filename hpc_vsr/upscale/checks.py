"""Checks whether a trained network suits an input: its kind, its blur and its range of values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hpc_vsr.media.blur import measure_blur
from hpc_vsr.media.planes import GREY
from hpc_vsr.system.errors import InputError
from hpc_vsr.upscale.upscaler import Upscaler

SHARP = 0.6  # what `measure_blur` finds in frames without blur
BLUR_TOLERANCE = 0.35  # LR pixels
FAR = 0.5  # of the training's range of values; farther beyond that range, the units are probably different


def check_network(upscaler: Upscaler, is_field: bool, where: str) -> None:
    """Raise `InputError` if the network was trained on a video and the input is a field, or the other way round."""
    if is_field and (upscaler.for_video or upscaler.channels != 1):
        raise InputError(f"{upscaler.name}: was trained on a video or images; {where} needs a network for fields")
    if not is_field and not upscaler.for_video:
        raise InputError(f"{upscaler.name}: was trained on a field or on images without a known white; {where} needs "
                         "a network for videos or images")


def warn_of_blur(upscaler: Upscaler, frames: Iterable[np.ndarray], where: str) -> str | None:
    """Return a line if the frames look much sharper or more blurred than those that the network was trained for.

    `frames` are a few (h, w) arrays of luma in grey levels. None if there is nothing to warn of.
    """
    found, terms = measure_blur(frames), upscaler.trained.terms
    expected = terms.sigma / terms.scale
    if found is None or abs(found - max(expected, SHARP)) <= BLUR_TOLERANCE or max(found, expected) <= SHARP:
        return None
    outcome = "the result will ring at every edge" if found < expected else "the result will stay soft"
    degradation = f"--degradation.sigma {terms.scale * found:.1f}" if found > SHARP else "--degradation.kind BI"
    return (f"warning: {where}: looks blurred by {found:.1f} of its pixels (sigma), and {upscaler.name} was trained "
            f"for {expected:.1f}: {outcome}; train a network on data made with {degradation}")


def warn_of_rounding(upscaler: Upscaler, white: int, where: str) -> str | None:
    """Return a line if the network computes more coarsely than the grey levels of images deeper than 8 bits."""
    has_skip = upscaler.trained.network.skip is not None
    if white <= GREY or has_skip or upscaler.precision == "fp32":
        return None
    return (f"warning: {where}: is deeper than 8 bits, and {upscaler.precision} rounds what {upscaler.name} makes to "
            "about half a grey level of 256; --precision fp32 keeps the depth")


def warn_of_range(upscaler: Upscaler, values: np.ndarray, variable: str, subtracted: float = 0.0) -> str | None:
    """Return a line if the values of a field's first frame are far from those that the network was trained on.

    `subtracted` is what was subtracted from the values.
    """
    terms = upscaler.trained.terms
    offset = terms.offset_after(0.0)
    low, high = float(values.min()) + subtracted, float(values.max()) + subtracted
    is_near = low >= offset - FAR * terms.extent and high <= offset + (1 + FAR) * terms.extent
    if is_near and high - low >= 0.01 * terms.extent:
        return None
    return (f"warning: {variable} is {low:.3g} to {high:.3g} in its first frame, and {upscaler.name} was trained on "
            f"{offset:.3g} to {offset + terms.extent:.3g}; are the units the same?")
