"""The export of a network of several variables: each on its own range, and named."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from flows import MEAN, train_on_flow, velocity_and_pressure, write_flow
from stages import run_stage

import hpc_vsr

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    run = train_on_flow(folder, write_flow(folder / "flow.nc", *velocity_and_pressure()), "u,p")[1]
    done = run_stage("export", "--run", run, "--out", folder / "out")
    assert done.returncode == 0 and "of each range" in done.stdout, done.stderr
    return run, folder / "out"


def test_the_files_give_what_the_network_gives(exported):
    run, out = exported
    frames = np.nan_to_num(np.stack([values[5:10] for values in velocity_and_pressure()]), nan=MEAN)
    frames[0, frames[0] == MEAN] = 0
    expected = hpc_vsr.load(run, device="cpu", precision="fp32").upscale(frames.swapaxes(0, 1))[2]
    # a file takes p without what was subtracted
    seen = (frames - np.array([0, MEAN])[:, None, None, None]).astype(np.float32)[None]
    session = onnxruntime.InferenceSession(out / "run_u,p.onnx", providers=["CPUExecutionProvider"])
    made = (session.run(None, {"frames": seen})[0][0],
            torch.export.load(out / "run_u,p.pt2").module()(torch.from_numpy(seen))[0].numpy())
    for found in made:
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found[1].astype(np.float64) + MEAN, expected[1], rtol=0, atol=1e-5)


def test_file_and_card_name_the_variables(exported):
    run, out = exported
    found = {entry.key: entry.value for entry in onnx.load(out / "run_u,p.onnx").metadata_props}
    u, p = (values[:21] for values in velocity_and_pressure())
    assert (found["variables"], found["units"], found["channels"]) == ("u,p", "m s-1,Pa", "2")
    lows = [float(text) for text in found["values_from"].split(",")]
    assert lows == pytest.approx([np.nanmin(u), np.nanmin(p) - MEAN], abs=1e-4)
    text = (out / "README.md").read_text()
    assert "2 channels: u, p, in this order" in text and f"u in m s-1, {np.nanmin(u):.6g} to {np.nanmax(u):.6g}" in text
    assert f"after {MEAN:.10g} is subtracted" in text
    row = next(row for row in json.loads((run / "metrics-test.json").read_text())["rows"]
               if (row["method"], row.get("variable")) == ("wiener", "p"))
    assert f"| p | wiener | {row['rmse']:.4g} Pa | {row['psnr']:.2f} |" in text
