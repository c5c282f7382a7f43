"""Writes a trained network as ONNX and torch.export, and compares each file with the network."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc_vsr.data.info import for_channels
from hpc_vsr.data.splits import WINDOW
from hpc_vsr.data.values import upscale_values
from hpc_vsr.export.card import write_card
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import create_folder, format_bytes, write_text, write_whole

FORMATS = ("onnx", "pt2")
TRACED, TRIED = (2, 40, 48), ((1, 33, 50), (2, 64, 40))  # batch, height, width of the traced and of the compared frames
TOLERANCE = 2e-4  # share of the value range: 0.05 grey levels


class Deployed(nn.Module):
    """The network with its conversion of values, as other programs call it."""

    def __init__(self, trained: Trained):
        super().__init__()
        self.network = trained.network
        self.offset, self.extent = trained.terms.offset, trained.terms.extent

    def forward(self, frames: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, s h, s w), in the values that the network was trained on."""
        return upscale_values(lambda values: self.network.upscale(values, tile=0), frames, self.offset, self.extent)


def export(run: RunFolder, out: Path, formats: Sequence[str], sigma: float | None = None,
           noise: float | None = None) -> list[Path]:
    """Write the network of a run in some formats, and its card; return the files.

    `sigma` is the blur in pixels of the output, of a network that was trained for a range of blurs; if not given, it
    is that of its training data. `noise` is that of the frames in grey levels, of a network that was trained for noisy
    recordings; none if not given.

    Raises
    ------
    InputError
        If the folder is no run, the network was not trained for that blur or noise, the packages for ONNX are missing,
        or the folder cannot be written.
    Failed
        If a file does not compute the same as the network.
    """
    trained = load_trained(run)
    if sigma is not None or noise is not None:
        trained = trained.at(sigma, noise)
    if trained.settings.align:
        raise InputError(f"{run.path}: was trained with model.align, and neither format can hold the optical flow that "
                         "moves its frames; train with model.align = false to export")
    if "onnx" in formats:
        _check_packages()
    create_folder(out)
    whole = Deployed(trained).eval()
    with _quiet():
        program = trace(whole, trained)
    written = []
    for name, write, open_file in (("pt2", _write_pt2, _open_pt2), ("onnx", _write_onnx, _open_onnx)):
        if name in formats:
            path = out / f"{run.name}.{name}"
            with write_whole(path) as temporary, _quiet():
                write(program, trained, temporary)
                difference = _compare(open_file(temporary), whole, trained)
            # several variables have no common unit
            most = f"{difference:.2g} of each range" if trained.terms.has_variables else \
                f"{difference * trained.terms.extent:.2g}"
            print(f"{path}: {format_bytes(path.stat().st_size)}, differs from the network by at most {most}")
            written.append(path)
    card = out / "README.md"
    write_text(card, write_card(run, trained, written))
    print(card)
    return [*written, card]


def trace(whole: Deployed, trained: Trained) -> torch.export.ExportedProgram:
    """Return the graph of the network for frames of any size.

    It takes any batch, unless the network has a flow, whose sampling needs a batch of one.
    """
    batch, *size = TRACED
    dimensions = (3, 4) if trained.network.has_flow else (0, 3, 4)
    frames = _frames(trained, (1 if trained.network.has_flow else batch, *size))
    return torch.export.export(whole, (frames,),
                               dynamic_shapes={"frames": dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC)})


def _frames(trained: Trained, size: Sequence[int]) -> Tensor:
    terms = trained.terms
    random = torch.Generator().manual_seed(0)
    values = torch.rand(size[0], terms.channels, WINDOW, *size[1:], generator=random)
    extents, offsets = (torch.tensor(for_channels(one, terms.channels)).view(-1, 1, 1, 1)
                        for one in (terms.extent, terms.offset))
    return values * extents + offsets


def _write_pt2(program, _trained: Trained, path: Path) -> None:
    with path.open("wb") as stream:  # torch accepts a path only with the ending .pt2
        torch.export.save(program, stream)


def _open_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as stream:
        return torch.export.load(stream).module()


def _write_onnx(program, trained: Trained, path: Path) -> None:
    # the exporter's optimisation fails on this graph; onnxruntime optimises when it opens the file
    onnx = torch.onnx.export(program, dynamo=True, input_names=["frames"], output_names=["upscaled"], optimize=False,
                             verbose=False)
    terms = trained.terms
    offsets, extents = (for_channels(one, terms.channels if terms.has_variables else 1)
                        for one in (terms.offset, terms.extent))
    named = {"variables": ",".join(terms.variables), "units": ",".join(terms.units)} if terms.has_variables else {}
    onnx.model.metadata_props.update({
        "scale": str(terms.scale), "channels": str(terms.channels), "blur_sigma": str(terms.sigma),
        "values_from": ",".join(map(str, offsets)),
        "values_to": ",".join(str(offset + extent) for offset, extent in zip(offsets, extents, strict=True)),
        "network": trained.settings.name, **named})
    onnx.save(str(path), external_data=False)


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda frames: torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])


def _compare(exported: Callable[[Tensor], Tensor], whole: Deployed, trained: Trained) -> float:
    """Return the greatest difference on random frames of other sizes than the traced one, as a share of the range.

    Raises `Failed` if it is more than rounding.
    """
    worst, extents = 0.0, np.array(for_channels(trained.terms.extent, trained.terms.channels))
    for batch, *size in TRIED:
        frames = _frames(trained, (1 if trained.network.has_flow else batch, *size))
        with torch.inference_mode():
            expected = whole(frames)
            found = exported(frames)
        if found.shape != expected.shape:
            raise Failed(f"the exported network gives {tuple(found.shape)} for {tuple(frames.shape)} "
                         f"instead of {tuple(expected.shape)}")
        # of noise a Wiener filter makes values far beyond the range, and the rounding grows with them
        ranges = np.maximum(extents, np.ptp(expected.numpy(), (0, 2, 3)))
        worst = max(worst, float((np.abs((found - expected).numpy()).max((0, 2, 3)) / ranges).max()))
    if not worst <= TOLERANCE:
        raise Failed(f"the exported network differs by up to {worst:.3g} of the range of values from the network of "
                     "the run")
    return worst


def _check_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"--formats onnx: needs {package}; run 'pip install hpc-vsr[export]'") from None


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as a function
    """Hide the exporter's notes on packages and on itself from the user."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *problem):
        logging.disable(logging.NOTSET)
        super().__exit__(*problem)
