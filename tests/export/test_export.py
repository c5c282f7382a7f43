"""Export to ONNX and torch.export, and the model card."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from stages import assert_refused, run_stage

import hpc_vsr
from hpc_vsr.export import formats as stage
from hpc_vsr.models.build import build_model
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import DataTerms, Trained
from hpc_vsr.system.errors import Failed, InputError

pytestmark = pytest.mark.slow

FRAMES = (np.random.default_rng(0).uniform(0, 255, (1, 1, 5, 30, 44))).astype(np.float32)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder that the command writes."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    done = run_stage("export", "--run", trained, "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "tiny.onnx", "tiny.pt2"]
    assert done.stdout.splitlines()[-1] == str(out / "README.md") and not done.stderr, done.stderr
    return out


@pytest.fixture(scope="module")
def expected(trained) -> np.ndarray:
    network = hpc_vsr.load(trained, device="cpu", precision="fp32")
    return network.enlarge(torch.from_numpy(FRAMES[0])).numpy()


def test_onnxruntime_gives_what_the_network_gives(exported, expected):
    session = onnxruntime.InferenceSession(exported / "tiny.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"frames": FRAMES})[0][0], expected, atol=0.05)
    two = np.concatenate([FRAMES, FRAMES])[..., :20, :]
    assert session.run(None, {"frames": two})[0].shape == (2, 1, 40, 88)


def test_onnx_says_what_it_was_trained_for(exported):
    found = {entry.key: entry.value for entry in onnx.load(exported / "tiny.onnx").metadata_props}
    assert {key: found[key] for key in ("scale", "blur_sigma", "values_to", "network")} == {
        "scale": "2", "blur_sigma": "3.0", "values_to": "255.0", "network": "delta"}


def test_torch_export_gives_what_the_network_gives(exported, expected):
    module = torch.export.load(exported / "tiny.pt2").module()
    np.testing.assert_allclose(module(torch.from_numpy(FRAMES))[0], expected, atol=0.05)


def test_the_card_tells_the_data_and_the_measured_figures(exported, trained):
    text = (exported / "README.md").read_text()
    row = next(row for row in json.loads((trained / "metrics-test.json").read_text())["rows"]
               if (row["method"], row["profile"]) == ("tiny", "paper"))
    for words in ("83,702 parameters", "blur of 3 pixels", "`clip.mp4`", "6 steps of 4 samples",
                  f"| tiny | paper | {row['psnr']:.2f} | {row['ssim']:.4f} |", "## Limits", "## Licence", "tiny.onnx"):
        assert words in text, words


def test_without_a_measurement_the_card_says_so(trained, tmp_path):
    run = tmp_path / "fresh"
    shutil.copytree(trained, run)
    (run / "metrics-test.json").unlink()
    stage.export(RunFolder(run), tmp_path / "out", ["pt2"])
    assert "Not measured with these weights" in (tmp_path / "out" / "README.md").read_text()


def test_a_file_that_computes_something_else_is_not_kept(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_open_pt2", lambda path: lambda frames: stage_output(trained, frames) + 1)
    with pytest.raises(Failed, match="differs"):
        stage.export(RunFolder(trained), tmp_path / "out", ["pt2"])
    assert not list((tmp_path / "out").iterdir())


def stage_output(trained, frames: torch.Tensor) -> torch.Tensor:
    network = hpc_vsr.load(trained, device="cpu", precision="fp32")
    return torch.stack([network.enlarge(window) for window in frames])


@pytest.mark.parametrize(("name", "scale"), [("previous", 2), ("parallel5", 2), ("flow4x", 4), ("compact", 2),
                                             ("compact", 3)])
def test_every_network_is_exported_for_any_size(name, scale):
    depth = {} if name == "compact" else {"n_2d": 1, "n_3d": 1}
    settings = ModelSettings(name=name, skip="bicubic", **depth)
    network = build_model(settings, 1, scale, 0.0, 0.1).eval().requires_grad_(False)
    torch.nn.init.normal_(network.core.last.weight, 0, 0.01)
    terms = DataTerms(1, scale, 0.0, 0.1, 0.0, 255.0, "")
    trained = Trained(network, settings, terms, 0, "", "")
    whole = stage.Deployed(trained).eval()
    program = stage.trace(whole, trained)
    smaller = torch.from_numpy(FRAMES)[..., :40]
    torch.testing.assert_close(program.module()(smaller), whole(smaller), atol=0.05, rtol=0)


def test_what_cannot_be_exported_is_refused(trained, tmp_path, monkeypatch):
    assert_refused(run_stage("export", "--run", tmp_path), "runs/NAME")
    assert_refused(run_stage("export", "--run", trained, "--formats", "keras"), "formats")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"hpc-vsr\[export\]"):
        stage.export(RunFolder(trained), tmp_path / "out", ["onnx"])
