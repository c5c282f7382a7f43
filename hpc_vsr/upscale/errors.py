"""Writes the predicted error of an upscaling beside it: `upscale --error-map`.

It is an upscaling of its own, by the network that predicts the error of the other one, with its own segments, locks and
records; so it is continued like any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io

import numpy as np

from hpc_vsr.media.planes import PlaneFormat
from hpc_vsr.media.source import find_kind
from hpc_vsr.media.tags import HdrTags
from hpc_vsr.media.video_sink import Encoding
from hpc_vsr.runs.error_head import load_error
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import no_folder
from hpc_vsr.upscale.bundled import FOLDER
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler

PER_GREY_LEVEL = 10  # what is written in a video or an image of errors, for each grey level
GREY_8BIT = PlaneFormat("gray", 8, 1, 1, True)
CODEC, SUFFIX = "ffv1", ".mkv"  # without loss
UNSPECIFIED = 2  # code of ISO/IEC 23091-2, so that no player converts the errors as colours


def error_upscaler(settings: UpscaleSettings, upscaler: Upscaler) -> Upscaler:
    """Return what predicts the error of an upscaler.

    Raises
    ------
    InputError
        If its run was not calibrated, or errors cannot be written as the settings want them.
    """
    if settings.back_projection:
        raise InputError("--error-map: predicts the error of what the network makes; leave out --back-projection")
    if settings.error_map.absolute() == settings.output.absolute():
        raise InputError(f"--error-map: {settings.error_map} is the --output; choose another name")
    kind = "field" if settings.variable is not None else find_kind(settings.input).option
    if kind == "video" and settings.error_map.suffix.lower() != SUFFIX:
        raise InputError(f"--error-map: {settings.error_map} must end in {SUFFIX}, because the errors of a video are "
                         f"written without loss ({CODEC})")
    trained = load_error(RunFolder(settings.run or FOLDER), upscaler.trained)
    return Upscaler(trained, f"the error of {upscaler.name}", upscaler.device, upscaler.choice, upscaler.tile)


def error_settings(settings: UpscaleSettings, upscaler: Upscaler) -> UpscaleSettings:
    """Return the settings for the errors of an upscaling that was planned, with the blur and noise that it took."""
    terms = upscaler.trained.terms
    low, high = terms.blur_range
    return dataclasses.replace(settings, output=settings.error_map, error_map=None, compare=False, codec="auto",
                               quality=None, sigma=terms.sigma if low < high else None,
                               noise=terms.camera_noise if terms.most_noise else None)


def check_error_map(settings: UpscaleSettings, upscaler: Upscaler, predictor: Upscaler) -> None:
    """Raise `InputError` if the errors of an upscaling could not be written; it plans both and writes nothing."""
    # imported here, because the classes of the loop write errors too
    from hpc_vsr.upscale.loop import plan_upscaling

    if not settings.error_map.parent.is_dir():
        raise InputError(f"{no_folder(settings.error_map.parent)}; create it or choose another --error-map")
    with contextlib.redirect_stderr(io.StringIO()):  # it is said again when the work begins
        plan_upscaling(settings, upscaler)
        plan_upscaling(error_settings(settings, upscaler), predictor)


def encode_errors(encoding: Encoding) -> Encoding:
    """Return how the errors of a video are coded, whose pictures would be coded so."""
    plain = dataclasses.replace(encoding.tags, transfer=UNSPECIFIED, primaries=UNSPECIFIED, hdr=HdrTags())
    return dataclasses.replace(encoding, codec=CODEC, quality=None, planes=GREY_8BIT, tags=plain)


def to_grey(errors: np.ndarray) -> np.ndarray:
    """Return (C, H, W) errors in grey levels as an (H, W) picture, uint8: ten times their mean over the channels."""
    return np.rint(np.clip(PER_GREY_LEVEL * errors.mean(0), 0, 255)).astype(np.uint8)
