"""LR frames of several blurs are those that a data set of each blur would have, to the bit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from patterns import moving_pattern
from stages import run_stage

from hpc_vsr.data.blurred import BlurredSplit
from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import Split, num_bytes
from hpc_vsr.system.errors import InputError

CPU = torch.device("cpu")
SIGMAS = [0.0, 1.5, 3.0]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A periodic field of 40 frames, 48x64."""
    xarray = pytest.importorskip("xarray")
    path = tmp_path_factory.mktemp("field") / "field.nc"
    values = moving_pattern(40, 48, 64)[..., 0].astype(np.float32) / 255
    axes = {"time": np.arange(40), "lat": np.linspace(-60, 60, 48), "lon": np.arange(64) * 360 / 64}
    xarray.DataArray(values, axes, ["time", "lat", "lon"], "speed", {"units": "m/s"}).to_netcdf(path)
    return path


def make(folder, source, sigma):
    """Return the data set of a source with one blur."""
    blur = ("--degradation.sigma", sigma) if sigma else ("--degradation.kind", "BI")
    done = run_stage("preprocess", *source, "--shards", 3, *blur, "--out", folder)
    assert done.returncode == 0, done.stderr
    return read_manifest(folder)


@pytest.mark.parametrize("kind", ["video", "field"])
def test_a_window_of_each_blur_is_that_of_a_data_set_with_this_blur(tmp_path, clip, field, kind):
    source = ("--video", clip) if kind == "video" else ("--field", field, "--variable", "speed")
    sets = [make(tmp_path / f"{number}", source, sigma) for number, sigma in enumerate(SIGMAS)]
    kept, read = (BlurredSplit(sets[0], "train", device, sigmas=SIGMAS) for device in (CPU, None))
    rows = slice(3, 11)
    for level, other in enumerate(sets):
        expected = Split(other, "train", CPU)
        assert kept.centres == expected.centres
        for centre in expected.centres[::7]:
            for split in (kept, read):
                assert torch.equal(split.lr_window(centre, rows, level), expected.lr_window(centre, rows))
            places = kept.window_places(torch.tensor([centre]), level)[0]
            assert torch.equal(kept.windows_in_memory[places], expected.lr_window(centre))


@pytest.fixture(scope="module")
def manifest(dataset):
    return read_manifest(dataset)


def test_patches_from_memory_are_those_from_the_shards(manifest):
    kept = Clips(manifest, "train", CPU, kind=lambda *one: BlurredSplit(*one, sigmas=SIGMAS))
    read = BlurredSplit(manifest, "train", sigmas=SIGMAS)
    assert sum(one.nbytes for one in kept.flat.values()) == num_bytes(manifest, "train", num_blurs=len(SIGMAS))
    batches = [load_batches(Patches(frames, 12, 3, True, 5, batch_size=4), 0, 24, 4, 0, 1, 0, CPU)
               for frames in (kept, read)]
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.lr, theirs.lr) and torch.equal(ours.hr, theirs.hr)


def test_each_blur_has_its_turn_and_all_patches_of_a_batch_have_it(manifest):
    frames = BlurredSplit(manifest, "train", sigmas=SIGMAS)
    patches, plain = Patches(frames, 12, 3, True, 5, batch_size=4), Patches(Split(manifest, "train"), 12, 3, True, 5)
    levels = [patches.level_of(batch) for batch in range(30)]
    assert all(sorted(levels[first : first + 3]) == [0, 1, 2] for first in range(0, 30, 3))
    assert len({tuple(levels[first : first + 3]) for first in range(0, 30, 3)}) > 1  # not always in the same order
    for position in range(40):
        assert patches.place(position)._replace(level=0) == plain.place(position)
        assert patches.place(position).level == levels[position // 4]


def test_two_ranks_cut_what_one_would(manifest):
    patches = Patches(BlurredSplit(manifest, "train", CPU, sigmas=SIGMAS), 12, 3, True, 5, batch_size=8)
    alone = list(load_batches(patches, 8, 32, 8, 0, 1, 0, CPU))
    dealt = [list(load_batches(patches, 8, 32, 8, rank, 2, 0, CPU)) for rank in (0, 1)]
    for whole, *shares in zip(alone, *dealt, strict=True):
        assert torch.equal(whole.lr, torch.cat([share.lr for share in shares]))


def test_cells_without_a_value_are_refused():
    split = BlurredSplit.__new__(BlurredSplit)
    split.manifest = SimpleNamespace(folder="data/field", periodic="")
    frame = np.zeros((1, 8, 8), np.float32)
    frame[0, 2, 3] = np.nan
    with pytest.raises(InputError, match="data/field has cells without a value"):
        split._degrade(frame, 0)
