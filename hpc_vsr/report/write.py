"""Writes the report of one or more runs. It shows what `hpc_vsr.evaluate` recorded and measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from hpc_vsr.data.splits import REACH, SPLITS
from hpc_vsr.evaluation.record import ClipSummary
from hpc_vsr.report import figures, pictures, tables
from hpc_vsr.report.collect import Report, collect
from hpc_vsr.report.viewer import make_viewer
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.files import count_of, create_folder, write_json, write_text
from hpc_vsr.system.lock import only_writer

MOST_NAMED = 12  # clips of a split


def write_report(runs: Sequence[RunFolder], out: Path, split: str = "test", level: float | None = None,
                 states: Mapping[str, str] | None = None) -> str:
    """Write a report of runs into a folder.

    Parameters
    ----------
    runs : sequence of RunFolder
    out : Path
    split : str
        Split whose evaluations are shown.
    level : float, optional
        Validation PSNR in dB; the report shows when each run first reached it.
    states : mapping, optional
        {run: state} of the runs that are not finished, as `hpc_vsr.cluster.state` has found it. Without it, the report
        says what their folders say.

    Returns
    -------
    str
        The report as Markdown, and the path of the page.

    Raises
    ------
    InputError
        If no run can be reported, or they were measured on different data sets.
    """
    report = collect(runs, split, level, states)
    create_folder(out)
    text = tables.markdown(report, lead(report, split))
    with only_writer(out):
        write_text(out / "metrics.csv", tables.csv_text(report))
        write_text(out / "report.md", text)
        write_text(out / "index.html", _page(report, split))
        write_json(out / "report.json", report.content)
    return f"{text}\nreport: {out / 'index.html'}"


def lead(report: Report, split: str) -> str:
    """Return two sentences on what was done."""
    dataset = report.dataset
    degradation, clips = dataset.degradation, dataset.all_clips
    (height, width), (lr_height, lr_width) = clips[0].hr_size, clips[0].lr_size
    blur = f"a Gaussian blur of {degradation.sigma:g} pixels and " if degradation.kind == "BD" else ""
    sizes = {clip.hr_size for clip in clips}
    frames, of_clips = sum(clip.source.frames for clip in clips), ""
    if dataset.is_collection:
        number = sum(split in clip.splits for clip in clips)
        measured = f"{report.rows[0].frames} frames of {count_of(number, 'clip')}, which are the {split} split"
        others = f" and {count_of(len(sizes) - 1, 'other size')}" if len(sizes) > 1 else ""
        of_clips = f"{others} of {count_of(len(clips), 'clip')}"
    else:
        first, stop = clips[0].splits[split]
        measured = f"frames {first + REACH} to {stop - 1 - REACH} of the {split} split"
    reduced = f"to {lr_width}x{lr_height}" if len(sizes) == 1 else f"{degradation.scale} times"
    named = f" ({', '.join(dataset.channels)})" if report.has_variables else ""
    return (f"{frames} frames of {width}x{height}{of_clips}{named} were reduced {reduced} by {blur}"
            f"bicubic interpolation and enlarged again. Measured on {measured}{_unseen(report, split)}."
            f"{_unfinished(report)}")


def _unseen(report: Report, split: str) -> str:
    """Return a clause on whether the networks have seen the frames on which they are measured."""
    own = report.dataset.fingerprint
    foreign = [run.name for run in report.runs if run.trained_on != own]
    tuned = [f"{run.name} (from {start.run})" for run in report.runs if run.trained_on == own and run.start
             for start in run.start.chain if start.data_fingerprint != own]
    told = ((foreign, "trained on"), (tuned, "fine-tuned after a training on"))
    clauses = [f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} {what} another data set, which may hold some "
               "of these frames" for names, what in told if names]
    if clauses:
        return f"; {'; '.join(clauses)}"
    return {"test": ", which no network has seen", "val": ", which chose the weights", "train": ""}[split]


def _unfinished(report: Report) -> str:
    """Return a sentence on the runs that were stopped and not continued, or diverged."""
    told = [f"{run.name}: {report.states[run.name]}" for run in report.runs if run.name in report.states]
    return f" Not finished: {'; '.join(told)}." if told else ""


def _page(report: Report, split: str) -> str:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("hpc_vsr.report", "."), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True)
    profile = report.main_profile
    variables = report.variables if report.has_variables else [None]
    shown = [(pictures.png_uri(pictures.comparison(report, index, channel)),
              f"comparison of {report.picture_name(index, variable.name if variable else '')}")
             for channel, variable in enumerate(variables) for index in range(len(report.pictures["frame"]))
             ] if pictures.can_compare(report) else []
    is_collection = report.dataset.is_collection
    return environment.get_template("page.html.j2").render(
        dataset=report.dataset, lead=lead(report, split), split=split, failed=report.failed,
        highlights=_highlights(report, profile), device=report.runs[0].device.upper(),
        tables=tables.result_tables(report), comparison=tables.comparison_table(report),
        ablation=tables.ablation_table(report), ablation_svg=figures.ablations(report),
        flow=tables.flow_table(report), published=tables.published_table(report),
        differences=tables.protocol_differences(report), profile=profile, is_video=report.is_video, pictures=shown,
        viewer=make_viewer(report),
        picture_profile="field" if report.has_variables else profile,
        spectra=[(variable.name if report.has_variables else "", figures.power_spectra(report, variable))
                 for variable in report.variables] if "field" in report.profiles else [],
        clips=tables.clips_table(report),
        clips_svg=figures.psnr_over_clips(report, profile) if is_collection else None,
        frames_svg=None if is_collection else figures.psnr_over_frames(report, profile),
        calibration=tables.calibration_table(report), calibration_svg=figures.calibrations(report),
        training_svg=figures.training_curves(report), facts=_facts(report))


def _highlights(report: Report, profile: str) -> list[tuple[str, str]]:
    """Return the answers that a reader wants first: how much better the network is than the baselines."""
    rows = {row.method: row for row in report.ranked(profile)}
    names = {run.name for run in report.runs}
    networks = [row for row in report.ranked(profile) if row.method in names]
    if not networks or networks[0].psnr is None:
        return []
    best = networks[0]
    gains = [(f"{best.psnr - rows[name].psnr:+.2f} dB", f"{best.method} over {label}")
             for name, label in (("bicubic", "bicubic"), ("wiener", "Wiener")) if name in rows and rows[name].psnr]
    return [(f"{best.psnr:.2f} dB", f"PSNR of {best.method} ({profile})"), *gains,
            ("–" if best.ssim is None else f"{best.ssim:.3f}", f"SSIM of {best.method}"),
            (f"{best.params:,}", "parameters")]


def _channels(report: Report) -> str:
    dataset = report.dataset
    if not report.has_variables:
        return f"{', '.join(dataset.channels)}, {dataset.dtype}, {dataset.units}"
    named = [f"{one.name} ({one.units}, {one.offset:.4g} to {one.offset + one.extent:.4g} in the training split)"
             for one in report.variables]
    return f"{', '.join(named)}, {dataset.dtype}"


def _facts(report: Report) -> list[tuple[str, str]]:
    dataset = report.dataset
    clips = dataset.all_clips
    facts = [("data set", f"{dataset.name} (fingerprint {dataset.fingerprint})"),
             ("source", f"{clips[0].source.name}, SHA-256 {clips[0].source.sha256}"),
             ("channels", _channels(report)),
             ("splits", ", ".join(f"{name} {first} to {stop - 1}" for name, (first, stop) in clips[0].splits.items()))]
    if dataset.is_collection:
        facts[1] = ("source", f"{len(clips)} clips, {clips[0].source.name} to {clips[-1].source.name}; dataset.json "
                    "has their SHA-256")
        facts[3] = ("splits", _splits_of_clips(clips))
    for run in report.runs:
        model, train = run.model, run.train
        if train is None:
            facts.append((f"run {run.name}", f"{model.name}, weights of {run.imported['file']} "
                          f"(SHA-256 {run.imported['sha256']})"))
            continue
        facts.append((f"run {run.name}", f"{model.name}, skip {model.skip}, input {model.input}, "
                      f"{f'fine-tuned from {run.start}, ' if run.start else ''}"
                      f"{train.steps} steps of {train.batch_size} samples, patches of {train.patch_size}, "
                      f"{train.loss}, lr {train.lr:g}, {train.precision}; weights of step {run.step}, "
                      f"evaluated in {run.precision} on the {run.device.upper()}"))
    return facts


def _splits_of_clips(clips: Sequence[ClipSummary]) -> str:
    """Return how a collection is split: in time, or which clips are in which split."""
    if any(len(clip.splits) > 1 for clip in clips):
        return "in time, within each clip"
    texts = []
    for name in SPLITS:
        own = [clip.name for clip in clips if name in clip.splits]
        texts.append(f"{name} {', '.join(own[:MOST_NAMED])}" + (f" and {len(own) - MOST_NAMED} more"
                                                                if len(own) > MOST_NAMED else ""))
    return f"by clip: {'; '.join(texts)}"


__all__ = ["Report", "collect", "write_report"]
