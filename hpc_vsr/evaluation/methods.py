"""The methods that an evaluation compares: the two baselines, the network, and variants of the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.splits import REACH, WINDOW, window_around
from hpc_vsr.data.values import Numbers, upscale_values
from hpc_vsr.models.blocks import count_parameters
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.flops import count_flops
from hpc_vsr.models.precision import autocast
from hpc_vsr.models.reduce import BLUR_REACH, Reduce, back_project
from hpc_vsr.models.wrap import wrapped
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained
from hpc_vsr.system.errors import InputError

NUM_SYMMETRIES = 8
BASELINE = "baseline"  # in the place of a network's name


@dataclass(frozen=True)
class Method:
    """A way to enlarge the centre frame of a window.

    Attributes
    ----------
    name : str
    model : str
        "baseline" or the name of the network.
    num_parameters, flops : int
        Size, and floating-point operations per frame; 0 for a baseline.
    enlarge : callable
        (C, 5, h, w) window of stored values to (C, H, W) float32 in the same values.
    fits_hr : bool
        Whether the result is fitted to HR by a gain and an offset before it is measured.
    """

    name: str
    model: str
    num_parameters: int
    flops: int
    enlarge: Callable[[Tensor], Tensor]
    fits_hr: bool = False


def baselines(manifest: Manifest, noise: float | list[float], device: torch.device) -> list[Method]:
    """Return bicubic enlargement, and its Wiener deconvolution with the noise-to-signal power `noise`.

    Of several variables each has its own noise.
    """
    filters = {"bicubic": Enlarge("bicubic", manifest.scale),
               "wiener": Enlarge("wiener", manifest.scale, manifest.degradation.blur_sigma, noise)}

    def enlarger(enlarge: Enlarge) -> Callable[[Tensor], Tensor]:
        return lambda window: wrapped(enlarge, window[None, :, REACH].float(), enlarge.reach, manifest.periodic)[0]

    return [Method(name, BASELINE, 0, 0, enlarger(enlarge.to(device))) for name, enlarge in filters.items()]


def network_methods(name: str, trained: Trained, manifest: Manifest, precision: str, device: torch.device,
                    self_ensemble: bool, back_projection: int, first_stage: bool) -> Iterator[Method]:
    """Yield the network of a run named `name`, and these variants of it if they are asked for.

    ``NAME x8``: the mean over the 8 symmetries of a square. ``NAME bp``: the result after `back_projection` steps of
    back-projection. ``NAME 2D`` and ``NAME 2D fitted``: what only its 2D part makes of the centre frame, and the same
    fitted to HR by the best gain and offset, which is its upper limit.
    """
    terms, model, num_parameters = trained.terms, trained.settings.name, count_parameters(trained.network)
    flops = count_flops(trained.network, terms.channels, manifest.lr_size)
    network = trained.network.to(device)

    in_stored_values = functools.partial(_in_stored_values, offset=terms.offset_after(manifest.subtracted),
                                         extent=terms.extent, precision=precision, device=device,
                                         margin=network.find_wrap(terms.channels) if manifest.periodic else 0,
                                         periodic=manifest.periodic)
    plain = in_stored_values(network.upscale)
    yield Method(name, model, num_parameters, flops, plain)
    if self_ensemble:
        yield Method(f"{name} x8", model, num_parameters, NUM_SYMMETRIES * flops,
                     in_stored_values(lambda window: _over_symmetries(network.upscale, window)))
    if back_projection:
        if BLUR_REACH * manifest.degradation.blur_sigma >= min(manifest.hr_size):
            raise InputError(f"evaluate.back_projection: frames of {manifest.hr_size[1]}x{manifest.hr_size[0]} are too "
                             f"small for a blur of {manifest.degradation.blur_sigma:g} pixels; set it to 0")
        reduce = Reduce(manifest.scale, manifest.degradation.blur_sigma).to(device)
        bicubic = Enlarge("bicubic", manifest.scale).to(device)
        yield Method(f"{name} bp", model, num_parameters, flops, lambda window: back_project(
            plain(window)[None], window[None, :, REACH].float(), reduce, bicubic, back_projection,
            manifest.periodic)[0])
    if first_stage and network.core.has_first_stage:
        part = in_stored_values(network.upscale_first_stage)
        yield Method(f"{name} 2D", model, num_parameters, flops, part)
        yield Method(f"{name} 2D fitted", model, num_parameters, flops, part, fits_hr=True)


def applied_twice(run: RunFolder, manifest: Manifest, precision: str, device: torch.device) -> Method:
    """Return ``NAME twice``: a network for 2 times, applied to the five frames and then to its own results.

    At the ends of the window the nearest frames replace those beyond it.

    Raises
    ------
    InputError
        If the run's network does not enlarge 2 times, or the data are not for 4 times or have other channels.
    """
    trained = load_trained(run)
    terms = trained.terms
    if (terms.scale, manifest.scale, terms.channels) != (2, 4, len(manifest.channels)):
        raise InputError(f"evaluate.twice: {run.path} enlarges {terms.channels} channels {terms.scale} times and the "
                         f"data set has {len(manifest.channels)} for {manifest.scale} times; give a network for 2 "
                         "times and a data set for 4 times, with the same channels")
    once, again = (count_flops(trained.network, terms.channels, (rows, columns))
                   for rows, columns in (manifest.lr_size, [2 * side for side in manifest.lr_size]))
    network = trained.network.to(device)

    def twice(values: Tensor) -> Tensor:
        frames = [network.upscale(values[:, :, window_around(position, 0, WINDOW)]).float()
                  for position in range(WINDOW)]
        return network.upscale(torch.stack(frames, dim=2))

    return Method(f"{run.name} twice", trained.settings.name, count_parameters(network), WINDOW * once + again,
                  _in_stored_values(twice, terms.offset_after(manifest.subtracted), terms.extent, precision, device,
                                    2 * network.find_wrap(terms.channels) if manifest.periodic else 0,
                                    manifest.periodic))


def _in_stored_values(upscale: Callable[[Tensor], Tensor], offset: Numbers, extent: Numbers, precision: str,
                      device: torch.device, margin: int, periodic: str) -> Callable[[Tensor], Tensor]:
    """Return `Method.enlarge` for a network's function of values 0..1."""
    def enlarge(window: Tensor) -> Tensor:
        with autocast(device, precision):
            return upscale_values(upscale, window[None], offset, extent, margin, periodic)[0]
    return enlarge


def _over_symmetries(upscale: Callable[[Tensor], Tensor], window: Tensor) -> Tensor:
    """Return the mean of the results for the window mirrored and turned in 8 ways, each turned back."""
    total = 0
    for turns in range(4):
        for mirrored in (False, True):
            seen = torch.rot90(window, turns, (-2, -1))
            out = upscale(seen.flip(-1) if mirrored else seen).float()
            total = total + torch.rot90(out.flip(-1) if mirrored else out, -turns, (-2, -1))
    return total / NUM_SYMMETRIES
