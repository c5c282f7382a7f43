"""A vector is not mirrored in silence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hpc_vsr.experiment.settings import TrainSettings
from hpc_vsr.training.vectors import warn_of_vectors


@pytest.mark.parametrize(("units", "named"), [
    (["m s-1", "m s-1", "K"], "u, v have the same units (m s-1)"), (["K", "Pa", "m"], None), ("m s-1", None)])
def test_components_of_a_vector_are_told_unless_nothing_is_turned(units, named):
    several = isinstance(units, list)
    manifest = SimpleNamespace(has_variables=several, channels=["u", "v", "t"] if several else ["u"], units=units)
    told = list(warn_of_vectors(TrainSettings(), manifest))
    assert len(told) == (named is not None) and all(named in line and "--train.augment false" in line for line in told)
    assert not list(warn_of_vectors(TrainSettings(augment=False), manifest))
