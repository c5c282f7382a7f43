"""Checks whether a trained network suits an input: its kind, its blur and its range of values."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hpc_vsr.data.info import for_channels
from hpc_vsr.media.blur import blur_to_undo, measure_blur
from hpc_vsr.media.field_several import split_names
from hpc_vsr.media.noise import measure_noise
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.blurs import CAMERA_NOISE
from hpc_vsr.runs.trained import match_variables
from hpc_vsr.system.errors import InputError
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler

SHARP = 0.6  # what `measure_blur` finds in frames without blur
BLUR_TOLERANCE = 0.35  # LR pixels
NOISY = 2.0  # grey levels
FAR = 0.5  # of the training's range of values; farther beyond that range, the units are probably different


def check_network(upscaler: Upscaler, is_field: bool, where: str) -> None:
    """Raise `InputError` if the network was trained on a video and the input is a field, or the other way round."""
    several = upscaler.trained.terms.has_variables
    if is_field and (upscaler.for_video or upscaler.channels != 1 and not several):
        raise InputError(f"{upscaler.name}: was trained on a video or images; {where} needs a network for fields")
    if not is_field and not upscaler.for_video:
        raise InputError(f"{upscaler.name}: was trained on a field or on images without a known white; {where} needs "
                         "a network for videos or images")


def choose_variables(upscaler: Upscaler, given: str | None, where: str) -> tuple[str | None, str | None]:
    """Return the text of --variable in the order of the training, and a warning if the names are others.

    Parameters
    ----------
    given : str, optional
        As the user gave it; a network of several variables takes those of its training if nothing is given.
    where : str
        The input, for messages.

    Raises
    ------
    InputError
        If the variables do not fit those that the network was trained on.
    """
    terms = upscaler.trained.terms
    names = split_names(given) if given is not None else []
    if not terms.has_variables:
        return given, match_variables(terms, names, upscaler.name, where) if len(names) > 1 else None
    if given is None:
        return ",".join(terms.variables), None
    by_name = {name.rpartition("/")[2]: name for name in names}
    if by_name.keys() == set(terms.variables):  # whatever their order
        return ",".join(by_name[name] for name in terms.variables), None
    return given, match_variables(terms, list(by_name), upscaler.name, where)


def follow_input(settings: UpscaleSettings, upscaler: Upscaler, frames: Iterable[np.ndarray] | None, where: str
                 ) -> UpscaleSettings:
    """Give a network of several blurs, or of noise, the filters for the input, and return the settings with them.

    Parameters
    ----------
    settings : UpscaleSettings
        With the blur and the noise that the user gave, if any.
    frames : iterable of (C, h, w) arrays, or None
        A few frames in which to measure them, in grey levels as the network sees them. Without any the blur is that of
        the training data.
    where : str
        The input, for messages.
    """
    terms, sigma, noise = upscaler.trained.terms, settings.sigma, settings.noise
    (low, high), most = terms.blur_range, terms.most_noise
    to_measure = [sigma is None and low < high, noise is None and most > 0]
    frames = list(frames) if frames is not None and any(to_measure) else None
    taken, options = [], []
    if to_measure[0]:
        found = None if frames is None else measure_blur(_means(frames))
        if found is None:
            why = "not measured in a field" if frames is None else "it shows too little to measure it"
            sigma, source = terms.sigma, f"{why}; that of the training data"
        else:
            sigma, source = _within(blur_to_undo(found, terms.scale), low, high, upscaler.name)
        taken.append(f"blurred by {sigma:g} pixels of the output ({source})")
        options.append("--sigma gives another blur")
    if to_measure[1]:
        found = _noise_of(frames or [])
        noise, source = (0.0, "it shows too little to measure it") if found is None else \
            _within(found, 0.0, most, upscaler.name)
        taken.append(f"noisy by {noise:g} grey levels ({source})")
        options.append("--noise gives another noise")
    if sigma is not None or noise is not None:
        upscaler.suit(sigma, noise)
    if taken:
        print(f"{where}: taken as {' and '.join(taken)}; {', '.join(options)}", file=sys.stderr)
    return dataclasses.replace(settings, sigma=sigma, noise=noise)


def _means(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return (h, w) means over the channels of (C, h, w) frames."""
    return [frame.mean(0) for frame in frames]


def _noise_of(frames: Iterable[np.ndarray]) -> float | None:
    """Return the noise of a channel of (C, h, w) frames; a mean over channels would have less."""
    found = [measure_noise(planes) for planes in zip(*frames, strict=True)]
    return None if not found or None in found else float(np.sqrt(np.mean(np.square(found))))


def _within(measured: float, low: float, high: float, name: str) -> tuple[float, str]:
    """Return a measured value, or the nearest one that the network was trained for, and what to say of it."""
    value = round(measured, 2)
    if low <= value <= high:
        return value, "measured"
    return min(max(value, low), high), f"measured as {value:g}; {name} was trained for {low:g} to {high:g}"


def warn_of_blur(upscaler: Upscaler, frames: Iterable[np.ndarray], where: str) -> str | None:
    """Return a line if the frames look much sharper or more blurred than those that the network was trained for.

    `frames` are a few (C, h, w) arrays of grey levels. None if there is nothing to warn of.
    """
    terms = upscaler.trained.terms
    if terms.blur_range[0] < terms.blur_range[1]:
        return None
    found = measure_blur(_means(frames))
    expected = terms.sigma / terms.scale
    if found is None or abs(found - max(expected, SHARP)) <= BLUR_TOLERANCE or max(found, expected) <= SHARP:
        return None
    outcome = "the result will ring at every edge" if found < expected else "the result will stay soft"
    degradation = f"--degradation.sigma {terms.scale * found:.1f}" if found > SHARP else "--degradation.kind BI"
    return (f"warning: {where}: looks blurred by {found:.1f} of its pixels (sigma), and {upscaler.name} was trained "
            f"for {expected:.1f}: {outcome}; train a network on data made with {degradation}")


def warn_of_noise(upscaler: Upscaler, frames: Iterable[np.ndarray], where: str) -> str | None:
    """Return a line if the frames look noisy, and the network was trained without noise; None if not."""
    if upscaler.trained.terms.most_noise:
        return None
    found = _noise_of(frames)
    if found is None or found < NOISY:
        return None
    return (f"warning: {where}: looks noisy ({found:.1f} grey levels), and {upscaler.name} was trained without noise "
            f"and may make it stronger; train with --train.noise 0..{min(math.ceil(found), CAMERA_NOISE.most):g}")


def warn_of_rounding(upscaler: Upscaler, white: int, where: str) -> str | None:
    """Return a line if the network computes more coarsely than the grey levels of images deeper than 8 bits."""
    has_skip = upscaler.trained.network.skip is not None
    if white <= GREY or has_skip or upscaler.precision == "fp32":
        return None
    return (f"warning: {where}: is deeper than 8 bits, and {upscaler.precision} rounds what {upscaler.name} makes to "
            "about half a grey level of 256; --precision fp32 keeps the depth")


def warn_of_range(upscaler: Upscaler, values: np.ndarray, variables: Sequence[str], subtracted: Sequence[float]
                  ) -> Iterator[str]:
    """Yield a line for each variable whose values in the first frame are far from those of the training.

    Parameters
    ----------
    values : (C, h, w) array
    variables : sequence of str
        Names of the channels.
    subtracted : sequence of float
        What was subtracted from the values of each.
    """
    terms = upscaler.trained.terms
    trained = (for_channels(one, terms.channels) for one in (terms.offset_after(0.0), terms.extent))
    for variable, plane, less, offset, extent in zip(variables, values, subtracted, *trained, strict=True):
        low, high = float(plane.min()) + less, float(plane.max()) + less
        is_near = low >= offset - FAR * extent and high <= offset + (1 + FAR) * extent
        if not is_near or high - low < 0.01 * extent:
            yield (f"warning: {variable} is {low:.3g} to {high:.3g} in its first frame, and {upscaler.name} was "
                   f"trained on {offset:.3g} to {offset + extent:.3g}; are the units the same?")


def warn_of_units(upscaler: Upscaler, variables: Sequence[str], units: Sequence[str]) -> Iterator[str]:
    """Yield a line for each variable whose units have another name than those of the training.

    If the network was trained on one variable, also if this one has another name.
    """
    terms = upscaler.trained.terms
    if not terms.has_variables and terms.names and list(variables) != terms.names:
        yield f"warning: {upscaler.name} was trained on {terms.names[0]}, and this is {', '.join(variables)}"
    for variable, found, trained in zip(variables, units, terms.all_units or units, strict=True):
        if found != trained:
            yield f"warning: {variable} is in {found}, and {upscaler.name} was trained on {trained}"


def warn_of_missing(upscaler: Upscaler, valid: np.ndarray | None, variables: Sequence[str]) -> Iterator[str]:
    """Yield a line for each variable with missing cells, if the network's Wiener filter makes rings near them.

    `valid` is (h, w) or (C, h, w) bool, False where the first frame has no value, or None if it has all.
    """
    reach = upscaler.trained.network.reach
    if valid is None or not upscaler.trained.settings.uses_wiener:
        return
    for variable, known in zip(variables, np.broadcast_to(valid, (len(variables), *valid.shape[-2:])), strict=True):
        if not known.all():
            share = 100 * float(np.mean(~known))
            yield (f"warning: {variable} has no value in {share:.2g} % of the cells of its first frame; near them (up "
                   f"to {reach} cells) the enlarged values may be far off, for what fills the gaps is not smooth and "
                   f"{upscaler.name} sharpens it; look there before you use them")
