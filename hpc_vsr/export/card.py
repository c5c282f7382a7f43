"""Writes a model card (Mitchell et al. 2019): a network's purpose, training data, quality and limits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hpc_vsr import __version__
from hpc_vsr.data.info import for_channels
from hpc_vsr.evaluation.record import BASELINES, ClipSummary, Evaluation, read_evaluation
from hpc_vsr.models.blocks import count_parameters
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.start import read_start
from hpc_vsr.runs.trained import DataTerms, Trained
from hpc_vsr.system.config import ABSENT
from hpc_vsr.system.errors import InputError

PROFILES = {"paper": "values 0..255 (for a field: 0..1), two pixels cut at each side, scikit-image's SSIM",
            "sr": "Y in studio range, as many pixels cut at each side as the scale, SSIM of Wang et al. 2004"}

FRAMES = {1: "the centre frame alone", 3: "the three frames in the middle", 5: "five neighbouring frames"}


def write_card(run: RunFolder, trained: Trained, files: Sequence[Path]) -> str:
    """Return the card of a run's network as Markdown."""
    terms, settings = trained.terms, trained.settings
    config = run.read_config()
    evaluation = _read_evaluation(run, trained)
    for_video = terms.for_video
    kind = "video" if for_video else "fields of a simulation"
    values = "grey levels 0..255" if for_video else f"the units of the training data, {_ranges(terms)} there"
    channels = f"{terms.channels} channel{'s' * (terms.channels > 1)}"
    if terms.has_variables:
        channels += f": {', '.join(terms.variables)}, in this order"
    blur = (f"a Gaussian blur of {terms.sigma:g} pixels (standard deviation, in pixels of the result) and reduction "
            f"by {terms.scale} with OpenCV's INTER_CUBIC" if terms.sigma else
            f"reduction by {terms.scale} with OpenCV's INTER_CUBIC, without blur")
    batch, least = (1, 30) if trained.network.has_flow else ("B", 8)
    lines = [
        f"# {run.name}", "",
        f"`{settings.name}` of hpc-vsr {__version__}: enlarges the centre of five frames of {kind} {terms.scale} "
        f"times, {count_parameters(trained.network):,} parameters, {channels}.", "",
        "## Input and output", "",
        f"`frames`, float32 ({batch}, {terms.channels}, 5, h, w), h and w at least {least}, in {values}; "
        f"`upscaled`, float32 ({batch}, {terms.channels}, {terms.scale}h, {terms.scale}w), in the same units. At the "
        f"ends{' of a video, and at scene cuts,' if for_video else ' of the field'} repeat the nearest frame"
        f"{' of the scene' * for_video}.", "",
        *_usage(files),
        "## What it assumes", "",
        f"LR is HR after {blur}. {_ranges_of_inputs(terms)}On an input that is less blurred the result rings at every "
        "edge; on one that is more blurred it stays soft."
        f"{' `python -m hpc_vsr.upscale` measures the blur and warns.' * for_video}", "",
        "## Training", "", *_training(config, trained, evaluation),
        "## How well it did", "", *_metrics(evaluation, run.name),
        "## Limits", "",
        f"From {FRAMES[settings.frames]} it restores detail that the degradation above has made faint; it does not "
        f"invent detail that is gone. {_measured_on(evaluation)}"
        "On other material it may do worse than Wiener deconvolution, so measure it there. It was not trained on "
        f"frames that are heavily compressed{', interlaced or noisy' if not terms.most_noise else ' or interlaced'}, "
        "unless its training data were.", "",
        "## Licence", "",
        _licence(config), "",
    ]
    return "\n".join(lines)


def _ranges_of_inputs(terms: DataTerms) -> str:
    (low, high), most, text = terms.blur_range, terms.most_noise, ""
    if low < high:
        text += (f"The network was trained for blurs of {low:g} to {high:g} pixels, and its fixed filters in these "
                 "files are for the one above (`--sigma` exports it for another). ")
    if most:
        noise = 0.0 if terms.camera_noise is ABSENT else terms.camera_noise
        text += (f"It was trained for frames with white noise of 0 to {most:g} grey levels (standard deviation), and "
                 f"its fixed filters are for {noise:g} (`--noise` exports it for another). ")
    return text


def _ranges(terms: DataTerms) -> str:
    """Return the values of the training as text, of several variables for each with its units."""
    count = terms.channels if terms.has_variables else 1
    numbers = (for_channels(one, count) for one in (terms.offset, terms.extent, terms.was_subtracted))
    ranges = [f"{offset:.6g} to {offset + extent:.6g}" + (f", after {less:.10g} is subtracted" if less else "")
              for offset, extent, less in zip(*numbers, strict=True)]
    if not terms.has_variables:
        return ranges[0]
    return "; ".join(f"{name} in {units}, {text}" for name, units, text in zip(terms.variables, terms.units, ranges,
                                                                              strict=True))


def _usage(files: Sequence[Path]) -> list[str]:
    code = {"onnx": 'onnxruntime.InferenceSession("{}").run(None, {{"frames": frames}})[0]       # numpy',
            "pt2": 'torch.export.load("{}").module()(frames)                                    # torch'}
    return ["```python", *(code[path.suffix[1:]].format(path.name) for path in files), "```", ""] if files else []


def _training(config: dict, trained: Trained, evaluation: Evaluation | None) -> list[str]:
    if config["train"] is None:
        return ["Weights that the authors of the 2021 paper published, imported; their data are not public.", ""]
    train = config["train"]
    data = f"data set `{Path(config['data']).name}` (fingerprint {config['data_fingerprint']})"
    if evaluation is not None and evaluation.dataset.fingerprint == config["data_fingerprint"]:
        data += f": {_training_frames(evaluation.dataset.all_clips)}"
    return [f"{trained.step:,} steps of {train['batch_size']} samples, {train['loss']}, {train['precision']}, on "
            f"{data}.{_fine_tuned(config)}", ""]


def _fine_tuned(config: dict) -> str:
    start = read_start(config, "config.json")
    return "" if start is None else f" Before the first step the weights were those of {start}."


def _measured_on(evaluation: Evaluation | None) -> str:
    """Return a sentence on how the frames that were measured lie to those of the training; "" if none were."""
    if evaluation is None:
        return ""
    dataset = evaluation.dataset
    if dataset.fingerprint != evaluation.trained_on:
        frames = f"the data set `{dataset.name}`, which may hold frames that it was trained on"
    elif len(dataset.all_clips) == 1:
        frames = "frames of one source, later than those that it was trained on"
    elif any(len(clip.splits) > 1 for clip in dataset.all_clips):
        frames = "frames of the clips that it was trained on, later in each"
    else:
        frames = "other clips of the collection than it was trained on"
    return f"It was measured on {frames}. "


def _training_frames(clips: Sequence[ClipSummary]) -> str:
    """Return on which frames of which clips a network was trained."""
    clips = [clip for clip in clips if "train" in clip.splits]
    if len(clips) == 1:
        (first, stop), source = clips[0].splits["train"], clips[0].source
        return f"frames {first} to {stop - 1} of {source.frames} of `{source.name}`"
    frames = sum(stop - first for first, stop in (clip.splits["train"] for clip in clips))
    return f"{frames} frames of {len(clips)} clips, `{clips[0].name}` to `{clips[-1].name}`"


def _metrics(evaluation: Evaluation | None, name: str) -> list[str]:
    if evaluation is None:
        return ["Not measured with these weights; run `python -m hpc_vsr.evaluate`.", ""]
    rows = [row for row in evaluation.rows if row.profile in PROFILES and row.clip is ABSENT]
    several = [row for row in evaluation.rows if row.variable is not ABSENT and row.clip is ABSENT
               and row.method in (*BASELINES, name)]
    by_variable = ["| variable | method | RMSE | PSNR (dB) |", "|---|---|---:|---:|",
                   *(f"| {row.variable} | {row.method} | {row.rmse:.4g} {row.units} | {row.psnr:.2f} |"
                     for row in several if None not in (row.psnr, row.rmse)), "",
                   "Each variable in its units and on its own range; the figures above are means over them.", ""]
    table = [f"| {row.method} | {row.profile} | {row.psnr:.2f} | {row.ssim:.4f} |" for row in rows
             if row.method in (*BASELINES, name) and None not in (row.psnr, row.ssim)]
    return [f"{evaluation.dataset.name}, split {evaluation.split}, {rows[0].frames} frames:", "",
            "| method | profile | PSNR (dB) | SSIM |", "|---|---|---:|---:|", *table, "",
            *(by_variable if several else []),
            *(f"`{profile}`: {PROFILES[profile]}." for profile in dict.fromkeys(row.profile for row in rows)), ""]


def _read_evaluation(run: RunFolder, trained: Trained) -> Evaluation | None:
    """Return the evaluation on the test split if it was made with these weights, else None."""
    with contextlib.suppress(InputError):
        found = read_evaluation(run.evaluation("test"), "")
        if found.checkpoint_sha256 == trained.sha256:
            return found
    return None


def _licence(config: dict) -> str:
    published = "The licence of the published weights applies: see the place that they were taken from."
    start = read_start(config, "config.json")
    if config["train"] is None or start and any(before.imported for before in start.chain):
        return published
    return ("hpc-vsr has the MIT licence. The weights belong to the person who trained them, and the licence of the "
            "training data may apply to them; write it here before you pass them on.")
