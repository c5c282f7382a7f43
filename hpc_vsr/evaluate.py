"""Measure a trained network and the two baselines on a split of its data set, frame by frame.

This writes metrics-SPLIT.json (every figure of every frame, in every profile) and pictures-SPLIT.npz (a few frames as
pictures) into the run folder; `hpc_vsr.report` shows both.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import docstring_parser

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.evaluation.record import Row
from hpc_vsr.experiment.settings import EvaluateSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.config import ABSENT, as_dict, from_dict
from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.parser import Parser

MOST_CLIPS = 20  # in the text


def format_rows(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned text table; of several variables with their names and RMSE in their units.

    For a collection they are those of all clips, and the PSNR of each clip follows.
    """
    of_clips = [row for row in rows if row.clip is not ABSENT]
    rows = [row for row in rows if row.clip is ABSENT]
    width = max(8, *(len(row.method) for row in rows))
    named = max((len(row.variable) for row in rows if row.variable is not ABSENT), default=0)
    head = f"{'method':<{width}} {'profile':<8} {'frames':>6} {'MSE':>10} {'PSNR/dB':>8} {'pooled':>8} {'SSIM':>7}"
    if named:
        named = max(named, len("variable"))
        head += f" {'variable':<{named}} {'RMSE':>10}"
    lines = [head, "-" * len(head)]
    for row in rows:
        psnr_text, pooled = ("∞" if value is None else f"{value:.2f}" for value in (row.psnr, row.psnr_pooled))
        mse, ssim = ("–" if value is None else f"{value:.4g}" for value in (row.mse, row.ssim))
        lines.append(f"{row.method:<{width}} {row.profile:<8} {row.frames:>6} {mse:>10} {psnr_text:>8} "
                     f"{pooled:>8} {ssim:>7}")
        if row.variable is not ABSENT:
            lines[-1] += f" {row.variable:<{named}} {row.rmse:>10.4g} {row.units}"
    return "\n".join([*lines, *_format_clips(of_clips)])


def _format_clips(rows: Sequence[Row]) -> list[str]:
    """Return the PSNR of each method on each clip, in the first profile."""
    clips: dict[str, list[Row]] = {}
    for row in rows:
        if row.profile == rows[0].profile:
            clips.setdefault(row.clip, []).append(row)
    if not clips:
        return []
    names = [row.method for row in next(iter(clips.values()))]
    width = max(8, *map(len, clips))
    head = f"{'clip':<{width}} {'frames':>6}" + "".join(f" {name:>{max(8, len(name))}}" for name in names)
    lines = ["", f"PSNR/dB ({rows[0].profile}) of each clip", head, "-" * len(head)]
    for clip, own in list(clips.items())[:MOST_CLIPS]:
        cells = ("∞" if row.psnr is None else f"{row.psnr:.2f}" for row in own)
        lines.append(f"{clip:<{width}} {own[0].frames:>6}" + "".join(
            f" {cell:>{max(8, len(name))}}" for cell, name in zip(cells, names, strict=True)))
    if len(clips) > MOST_CLIPS:
        lines.append(f"and {len(clips) - MOST_CLIPS} more, in the report and in metrics-{rows[0].split}.json")
    return lines


def build_parser() -> Parser:
    parser = Parser("evaluate", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, runs/NAME")
    parser.add_argument("--data", type=Path | None, default=None,
                        help="data set; the one it was trained on if not given")
    meanings = {entry.arg_name: entry.description for entry in docstring_parser.parse(EvaluateSettings.__doc__).params}
    for name, kind in typing.get_type_hints(EvaluateSettings).items():
        parser.add_argument(f"--{name}", type=kind | None, default=None,
                            help=f"{' '.join(meanings[name].split())} As in the run's config.json if not given.")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    run = RunFolder(arguments.run)
    config = run.read_config()
    data = run.find_data(arguments.data)
    names = [name for name in typing.get_type_hints(EvaluateSettings) if arguments[name] is not None]
    given = {name: as_dict(arguments[name]) for name in names}
    settings = from_dict(EvaluateSettings, {**config["evaluate"], **given}, str(run.config))
    # imported late, because torch takes seconds that --help and a mistyped option need not wait
    from hpc_vsr.evaluation.evaluate import evaluate

    print(format_rows(evaluate(run, read_manifest(data), settings).rows))


if __name__ == "__main__":
    sys.exit(exit_status(main))
