"""Tells when augmentation would turn the frames of a vector, but not its components."""

from __future__ import annotations

from collections.abc import Iterator

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.settings import TrainSettings


def warn_of_vectors(settings: TrainSettings, manifest: Manifest) -> Iterator[str]:
    """Yield a line if several variables may be components of a vector, and patches are mirrored and turned.

    Such patches are not like the data: a mirrored flow has u of the other sign, and a turned one has u and v swapped.
    Variables with the same units may be components; those with different ones are not.
    """
    if not settings.augment or not manifest.has_variables:
        return
    for units in dict.fromkeys(manifest.units):
        names = [name for name, own in zip(manifest.channels, manifest.units, strict=True) if own == units]
        if len(names) > 1:
            yield (f"warning: {', '.join(names)} have the same units ({units}); if they are components of a vector, "
                   "use --train.augment false, because train.augment mirrors and turns the frames and not the vectors")
