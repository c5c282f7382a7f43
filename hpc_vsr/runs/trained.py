"""The trained network of a run, and the kind of data that it was trained for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hpc_vsr.data.info import MAX_CHANNELS, MAX_VARIABLES, for_channels
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.blurs import Blurs
from hpc_vsr.models.build import build_model
from hpc_vsr.models.network import Network
from hpc_vsr.models.settings import WHOLE_SCALES, ModelSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import load_checkpoint, load_weights
from hpc_vsr.system.config import ABSENT, as_dict, check_finite, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import sha256


@dataclass(frozen=True)
class DataTerms:
    """The kind of data that a network was trained for, as its checkpoint records it.

    Attributes
    ----------
    channels, scale : int
    sigma : float
        Standard deviation of the blur in HR pixels.
    noise : float or list of float
        Noise-to-signal power of the Wiener filter, tuned on the validation split; of several variables for each.
    offset, extent : float or list of float
        (value - offset) / extent is 0..1 on the training split; of several variables for each.
    fingerprint : str
        Fingerprint of the data set.
    is_video : bool, optional
        True for grey levels of a video or images, False for the values of a field. Checkpoints of earlier versions do
        not say.
    bits : int, optional
        Significant bits of that video or those images. Checkpoints of earlier versions do not say; they are of 8 bits.
    subtracted : float or list of float, optional
        What was subtracted from the values of a field before they were stored, because float32 is too coarse for them.
    variable, unit : str, optional
        Name and unit of the only variable of a field. Checkpoints of earlier versions do not say.
    variables, units : list of str, optional
        Names and units of several variables, in the order of the channels.
    blurs : Blurs, optional
        The blurs and the camera noise, if the network was trained for several; `sigma` is then that of the data set.
    camera_noise : float, optional
        Noise of LR frames in grey levels that the filters are for, of a network that was trained for a range of it.
    """

    channels: int
    scale: int
    sigma: float
    noise: float | list[float]
    offset: float | list[float]
    extent: float | list[float]
    fingerprint: str
    is_video: bool | None = None
    bits: int | None = None
    subtracted: float | list[float] = ABSENT
    variable: str = ABSENT
    unit: str = ABSENT
    variables: list[str] = ABSENT
    units: list[str] = ABSENT
    blurs: Blurs = ABSENT
    camera_noise: float = ABSENT

    def __post_init__(self):
        check_finite(self, "data_terms")
        count = self.channels
        lists = [one for one in vars(self).values() if isinstance(one, list)]
        if not (1 <= count <= (MAX_VARIABLES if self.has_variables else MAX_CHANNELS) and self.scale in WHOLE_SCALES
                and 0 <= self.sigma <= 10 and all(len(one) == count for one in lists)
                and bool(lists) == self.has_variables
                and min(for_channels(self.noise, count)) >= 0 and min(for_channels(self.extent, count)) > 0):
            raise InputError(f"data_terms: invalid values: {self}")

    @classmethod
    def of(cls, manifest: Manifest, noise: float | list[float]) -> DataTerms:
        names = {}
        if manifest.has_variables:
            names = {"variables": manifest.channels, "units": manifest.units}
        elif not manifest.is_grey and len(manifest.channels) == 1:
            names = {"variable": manifest.channels[0], "unit": manifest.units}
        return cls(len(manifest.channels), manifest.scale, manifest.degradation.blur_sigma, noise,
                   manifest.offset, manifest.extent, manifest.fingerprint, manifest.is_grey,
                   manifest.bits, manifest.source_offset, **names)

    @property
    def has_blurs(self) -> bool:
        """Whether the network was trained for several blurs, or for a range of noise."""
        return self.blurs is not ABSENT

    @property
    def blur_range(self) -> tuple[float, float]:
        """The blurs that the network was trained for, from and to, in HR pixels."""
        return (self.blurs.sigmas[0], self.blurs.sigmas[-1]) if self.has_blurs else (self.sigma, self.sigma)

    @property
    def most_noise(self) -> float:
        """The largest camera noise that the network was trained for, in grey levels; 0 if for none."""
        return self.blurs.camera_noise[-1] if self.has_blurs else 0.0

    def at(self, sigma: float, camera_noise: float = 0.0) -> DataTerms:
        """Return the terms for another blur, in HR pixels, and noise, in grey levels."""
        assert self.has_blurs
        return dataclasses.replace(self, sigma=sigma, noise=self.blurs.noise_of(sigma, camera_noise),
                                   camera_noise=camera_noise)

    @property
    def has_variables(self) -> bool:
        """Whether the channels are several variables of a field."""
        return self.variables is not ABSENT

    @property
    def names(self) -> list[str]:
        """Names of the variables of a field, of one too; none if they are not known."""
        return self.variables if self.has_variables else [] if self.variable is ABSENT else [self.variable]

    @property
    def all_units(self) -> list[str]:
        """Units of the variables of a field, of one too; none if they are not known."""
        return self.units if self.has_variables else [] if self.unit is ABSENT else [self.unit]

    @property
    def for_video(self) -> bool:
        return (self.offset, self.extent) == (0.0, GREY) if self.is_video is None else self.is_video

    @property
    def rounding_shows(self) -> bool:
        """Whether the values are finer than the 256 grey levels to which those of 8 bits are rounded anyway."""
        return not self.for_video or (self.bits or 8) > 8

    def offset_after(self, subtracted: float | list[float]) -> float | list[float]:
        """Return `offset` for values from which `subtracted` was subtracted, instead of what it was in the training.

        `subtracted` is a number for all channels, or a list of one for each.
        """
        if not self.has_variables:
            now, = for_channels(subtracted, 1)
            return self.offset + (self.was_subtracted - now)
        each = (for_channels(one, self.channels) for one in (self.offset, self.was_subtracted, subtracted))
        return [offset + (before - now) for offset, before, now in zip(*each, strict=True)]

    @property
    def was_subtracted(self) -> float | list[float]:
        return 0.0 if self.subtracted is ABSENT else self.subtracted

    def build(self, settings: ModelSettings) -> Network:
        """Return the initialised network for this data."""
        return build_model(settings, self.channels, self.scale, self.sigma, self.noise)


@dataclass(frozen=True)
class Trained:
    """A trained network and the data that it was trained for."""

    predicts_error: ClassVar[bool] = False  # see `hpc_vsr.runs.error_head.TrainedError`

    network: Network
    settings: ModelSettings
    terms: DataTerms
    step: int
    where: str
    sha256: str

    def at(self, sigma: float | None = None, camera_noise: float | None = None) -> Trained:
        """Return the network with the fixed filters for another blur and noise; it has the same weights.

        Parameters
        ----------
        sigma : float, optional
            Blur in HR pixels; if not given, that of the data set.
        camera_noise : float, optional
            Noise of the LR frames in grey levels; none if not given.

        Raises
        ------
        InputError
            If it was trained for one blur only, or without noise, or one of them is not of its range.
        """
        (low, high), most = self.terms.blur_range, self.terms.most_noise
        if sigma is not None and low == high:
            raise InputError(f"{self.where}: was trained for one blur, of {self.terms.sigma:g} pixels; another blur "
                             "(--sigma) needs a network that was trained with train.sigma")
        if sigma is not None and not low <= sigma <= high:
            raise InputError(f"{self.where}: was trained for blurs of {low:g} to {high:g} pixels of its output, found "
                             f"{sigma:g}")
        if camera_noise is not None and not most:
            raise InputError(f"{self.where}: was trained for frames without noise; --noise needs a network that was "
                             "trained with train.noise")
        if camera_noise is not None and not 0 <= camera_noise <= most:
            raise InputError(f"{self.where}: was trained for noise of 0 to {most:g} grey levels, found "
                             f"{camera_noise:g}")
        terms = self.terms.at(self.terms.sigma if sigma is None else sigma, camera_noise or 0.0)
        network = terms.build(self.settings)
        load_weights(network, {**network.state_dict(), **dict(self.network.named_parameters())}, self.where)
        network.eval().requires_grad_(False)
        return dataclasses.replace(self, network=network, terms=terms)


def network_state(settings: ModelSettings, terms: DataTerms, weights: dict) -> dict[str, Any]:
    """Return the part of a checkpoint that `load_trained` reads."""
    return {"model_settings": as_dict(settings), "data_terms": as_dict(terms), "weights": weights}


def match_variables(terms: DataTerms, names: Sequence[str], run: str, where: str) -> str | None:
    """Check that the variables of an input or a data set are those of the training, in the same order.

    Parameters
    ----------
    terms : DataTerms
    names : sequence of str
        The variables in the order of the channels.
    run, where : str
        The network and the input, for messages.

    Returns
    -------
    str or None
        A warning, if all names are others than those of the training and so are taken by their order.

    Raises
    ------
    InputError
        If there are more or fewer variables, some of the names are others, or their order is another.
    """
    trained = terms.variables if terms.has_variables else ["one variable"]
    known = ", ".join(trained)
    if len(names) != len(trained):
        raise InputError(f"{run}: was trained on {known}, and {where} gives {', '.join(names)}; give what it was "
                         "trained on, or train a network for these")
    if not terms.has_variables or list(names) == trained:
        return None
    if set(names) & set(trained):
        raise InputError(f"{run}: was trained on {known}, in this order, and {where} gives {', '.join(names)}; give "
                         "all of them, or other names in their order")
    pairs = ", ".join(f"{name} for {one}" for name, one in zip(names, trained, strict=True))
    return f"{where}: {run} was trained on {known}; the names are taken in their order, {pairs}"


def load_trained(run: RunFolder) -> Trained:
    """Return the network of a run with its best validated weights, on the CPU, ready for inference.

    Raises
    ------
    InputError
        If the folder is not a run, has no valid checkpoint, or config.json describes another network.
    """
    config = run.read_config()
    path = run.checkpoints.best()
    try:
        state, checksum = load_checkpoint(path), sha256(path)
    except (InputError, FileNotFoundError):
        if path.exists():
            raise
        # a training in progress has deleted it, because it has saved a better one
        run.checkpoints.forget_checks()
        path = run.checkpoints.best()
        state, checksum = load_checkpoint(path), sha256(path)
    where = str(path)
    settings = from_dict(ModelSettings, config["model"], str(run.config))
    if from_dict(ModelSettings, state["model_settings"], where) != settings:
        raise InputError(f"{where}: is a checkpoint of another network, {state['model_settings']}; "
                         f"{run.config} has {config['model']}")
    terms = from_dict(DataTerms, state["data_terms"], where)
    network = terms.build(settings)
    load_weights(network, state["weights"], where)
    network.eval().requires_grad_(False)
    return Trained(network, settings, terms, state["step"], where, checksum)
