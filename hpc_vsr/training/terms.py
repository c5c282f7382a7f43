"""What an experiment trains on: the kind of its frames, and the terms of its data that a checkpoint records."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from hpc_vsr.data.aligned import AlignedSplit
from hpc_vsr.data.blurred import BlurredSplit
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.evaluation.baselines import tune_blurs, tune_on
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.models.blurs import Blurs
from hpc_vsr.runs.trained import DataTerms


def split_kind(experiment: Experiment) -> Callable[..., Split]:
    """Return what makes the training frames of a clip: as stored, with aligned windows, or with several blurs."""
    if experiment.model.align:
        return AlignedSplit
    sigmas = experiment.train.sigmas
    return functools.partial(BlurredSplit, sigmas=sigmas) if sigmas else Split


def find_terms(experiment: Experiment, manifest: Manifest) -> DataTerms:
    """Return the terms of a data set; if the network uses the Wiener filter, its noise is tuned for each."""
    uses_wiener = experiment.model.uses_wiener
    sigmas, camera_noise = experiment.train.sigmas, experiment.train.camera_noise
    terms = DataTerms.of(manifest, tune_on(manifest) if uses_wiener else 0.0)
    if not sigmas and not camera_noise:
        return terms
    sigmas, camera_noise = sigmas or [terms.sigma], camera_noise or [0.0]
    noise = tune_blurs(manifest, sigmas, camera_noise) if uses_wiener else [0.0] * (len(sigmas) * len(camera_noise))
    return dataclasses.replace(terms, blurs=Blurs(sigmas, noise, camera_noise))
