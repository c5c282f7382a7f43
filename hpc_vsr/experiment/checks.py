"""Checks, before anything is written, that an experiment suits its data and its number of ranks."""

from __future__ import annotations

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.experiment.start import check_start
from hpc_vsr.models.settings import check_scale
from hpc_vsr.system.errors import InputError


def check_fit(experiment: Experiment, manifest: Manifest, world_size: int) -> None:
    """Raise `InputError` if the settings do not suit the data or the number of ranks."""
    if experiment.impossible:
        raise InputError(experiment.impossible)
    settings = experiment.train
    check_start(experiment, manifest)
    check_scale(experiment.model, manifest.scale)
    if settings.first_stage_steps and experiment.model.name != "previous":
        raise InputError(f"train.first_stage_steps: {experiment.model.name} has no first stage of its own; "
                         "set it to 0 or model.name to previous")
    if settings.num_frames:
        _check_num_frames(settings, manifest)
    height, width = min(manifest.lr_sizes, key=min)
    if settings.patch_size > min(height, width):
        raise InputError(f"train.patch_size: {settings.patch_size} LR pixels are more than the "
                         f"{'smallest ' * (len(manifest.lr_sizes) > 1)}frames have, {width}x{height}")
    if not settings.patch_size and len(manifest.lr_sizes) > 1:
        raise InputError(f"train.patch_size: the clips of {manifest.folder} have frames of {len(manifest.lr_sizes)} "
                         "sizes, so whole frames (0) cannot make a batch; choose the side of a patch")
    if settings.sigma:
        _check_blurs(experiment, manifest)
    if settings.noise:
        _check_noise(experiment, manifest)
    check_batch(settings, world_size)


def _check_blurs(experiment: Experiment, manifest: Manifest) -> None:
    if manifest.has_variables:
        raise InputError(f"train.sigma: {manifest.folder} has several variables, each with a filter of its own; a "
                         "range of blurs is for one variable, or for grey levels and colours")
    own, sigmas = manifest.degradation.blur_sigma, experiment.train.sigmas
    if not sigmas[0] <= own <= sigmas[-1]:
        raise InputError(f"train.sigma: {experiment.train.sigma} has no place for the blur of {manifest.folder}, "
                         f"{own:g}, which the validation and the evaluation use; widen the range")
    if experiment.model.align:
        raise InputError("train.sigma: neighbours are moved onto the centre frame (model.align) for one blur only; "
                         "set model.align to false, or leave out train.sigma")


def _check_noise(experiment: Experiment, manifest: Manifest) -> None:
    if not manifest.is_grey:
        raise InputError(f"train.noise: is in grey levels, and {manifest.folder} has values of a field; leave it out")
    if experiment.model.align:
        raise InputError("train.noise: neighbours are moved onto the centre frame (model.align) by a flow that was "
                         "found without noise; set model.align to false, or leave out train.noise")


def _check_num_frames(settings: TrainSettings, manifest: Manifest) -> None:
    if manifest.is_collection:
        raise InputError(f"train.num_frames: {manifest.folder} is a collection of clips; set it to 0, or name a data "
                         "set of one source")
    first, stop = manifest.info.splits["train"]
    if settings.num_frames > stop - first:
        raise InputError(f"train.num_frames: {settings.num_frames} are more than the training split has, "
                         f"{stop - first}")


def check_batch(settings: TrainSettings, world_size: int) -> None:
    """Raise `InputError` if the ranks cannot share a batch equally."""
    if settings.batch_size % world_size:
        raise InputError(f"train.batch_size: {settings.batch_size} cannot be dealt equally to {world_size} ranks; "
                         "choose a multiple")
    share = settings.batch_size // world_size
    if share % settings.micro_batches:
        raise InputError(f"train.micro_batches: the {share} samples of a rank cannot be cut into "
                         f"{settings.micro_batches} equal parts")
