"""A stream gives the frames of single windows to the bit, for any number of workers, and prepares each frame once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpc_vsr.models.build import build_model
from hpc_vsr.models.network import Network
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.upscale.stream import Frame, enlarge_stream
from hpc_vsr.upscale.upscaler import load
from hpc_vsr.upscale.windows import windows

pytestmark = pytest.mark.compute
NETWORKS = [dict(name="compact", frames=5), dict(name="compact", frames=1),
            dict(name="compact", align=True), dict(name="delta", n_2d=1, n_3d=1),
            dict(name="delta", n_2d=1, n_3d=1, frames=3), dict(name="previous")]


@pytest.mark.parametrize("tile", [0, 12])
@pytest.mark.parametrize("sharpens", [False, True])
@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: "-".join(map(str, options.values())))
def test_prepared_frames_give_what_a_window_gives(options, sharpens, tile):
    torch.manual_seed(0)
    network = build_model(ModelSettings(skip="wiener", input="deconvolved" if sharpens else "plain", **options), 1, 2,
                          1.5, 1e-3).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 0, 0.1)
    window = torch.rand(1, 1, 5, 20, 26)
    with torch.inference_mode():
        unseen = (5 - network.frames) // 2
        seen = [network.prepare(window[:, :, index]) for index in range(unseen, 5 - unseen)]
        assert torch.equal(network.upscale_seen(seen, tile), network.upscale(window, tile))


def stream_of(upscaler, values, workers, threads, **options):
    upscaler.workers, upscaler.threads = workers, threads
    frames = [Frame(frame, number) for number, frame in enumerate(values)]
    pictures = windows(frames, 0, range(len(frames)), len(frames))
    return list(enlarge_stream(pictures, upscaler, lambda out, frame: (frame.rest, out.copy()), **options))


@pytest.mark.parametrize("tile", [0, 16])
def test_any_number_of_workers_makes_the_same_frames(trained, tile):
    upscaler = load(trained, device="cpu", precision="fp32", tile=tile)
    values = np.random.default_rng(0).uniform(0, 255, (9, 1, 24, 32)).astype(np.float32)
    expected = stream_of(upscaler, values, 1, 1)
    assert [number for number, _ in expected] == list(range(9))
    for workers in (2, 5):
        for (number, ours), (other, theirs) in zip(stream_of(upscaler, values, workers, 1), expected, strict=True):
            assert number == other
            np.testing.assert_array_equal(ours, theirs)
    alone = upscaler.enlarge(torch.from_numpy(values[2:7]).transpose(0, 1)).numpy()
    np.testing.assert_allclose(alone, expected[4][1], rtol=1e-6, atol=1e-4)  # with this process's threads


def test_each_frame_is_prepared_once(trained, monkeypatch):
    prepared = []
    prepare = Network.prepare
    monkeypatch.setattr(Network, "prepare", lambda self, frame: (prepared.append(1), prepare(self, frame))[1])
    values = np.zeros((12, 1, 24, 32), np.float32)
    assert len(stream_of(load(trained, device="cpu", precision="fp32"), values, 2, 1)) == len(prepared) == 12


def test_an_error_of_the_network_ends_the_stream(trained, monkeypatch):
    upscaler = load(trained, device="cpu", precision="fp32")
    monkeypatch.setattr(upscaler, "enlarge_seen", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        stream_of(upscaler, np.zeros((12, 1, 24, 32), np.float32), 2, 1)
