"""Sizes at which things break, and what the stages take there: `python campaign/load.py`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32  # HR pixels


def run_stage(stage: str, *arguments, cwd: Path) -> tuple[float, int, str]:
    """Seconds, peak memory in MB, and what it printed; a stage that fails ends the program."""
    command = [sys.executable, "-m", f"hpc_vsr.{stage}", *map(str, arguments)]
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.monotonic() - started, peak // 1024 if peak > before else 0, done.stdout


def write_long_video(path: Path, num_frames: int) -> None:
    """Noise that drifts."""
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, 4 * SIDE), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height = stream.width = SIDE
        stream.pix_fmt = "gray"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, index, 1)[:, :SIDE].copy(), format="gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python campaign/load.py", description=__doc__)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--points", type=int, default=1000)
    sizes = parser.parse_args()
    tiny = ["--model.n_2d", 1, "--model.n_3d", 1, "--train.steps", 50, "--train.batch_size", 16, "--train.patch_size",
            8, "--train.validate_samples", 4, "--train.device", "cpu", "--train.warmup_steps", 2]
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        write_long_video(folder / "long.mkv", sizes.samples + 4 * sizes.shards)
        table = []

        def measure(what: str, stage: str, *arguments) -> str:
            seconds, peak, told = run_stage(stage, *arguments, cwd=folder)
            table.append((what, seconds, peak))
            print(f"{what}: {seconds:.1f} s", file=sys.stderr, flush=True)
            return told

        made = ("preprocess", "--video", "long.mkv", "--shards", sizes.shards, "--out", "data", "--degradation.kind",
                "BI")
        measure(f"{sizes.shards:,} shards of {sizes.samples:,} samples: preprocessing", *made)
        measure("the same again, all finished before", *made)
        manifest = json.loads((folder / "data" / "dataset.json").read_text())
        samples = sum(entry["samples"] for entry in manifest["shards"])
        for resident in ("always", "never"):
            measure(f"{samples:,} samples: 50 steps, train.resident {resident}", "train", "--data", "data", "--out",
                    f"run-{resident}", *tiny, "--train.resident", resident)
        (folder / "small").mkdir()
        write_long_video(folder / "small" / "small.mkv", 60)
        run_stage("preprocess", "--video", "small.mkv", "--shards", 3, "--out", "data", cwd=folder / "small")
        run_stage("train", "--data", "data", "--out", "first", *tiny, cwd=folder / "small")
        for number in range(sizes.runs):
            shutil.copytree(folder / "small" / "first", folder / "small" / "runs" / f"run-{number:04d}")
        evaluate_all(folder / "small" / "runs", folder / "small" / "data")
        measure(f"a report of {sizes.runs} runs", "report", "small/runs", "--out", "report")
        page = (folder / "report" / "index.html").stat().st_size
        job = "\n".join(f'"train.{key}" = {list(range(1, count + 1))}' for key, count in factors(sizes.points).items())
        (folder / "job.toml").write_text(f'data = "data"\n[train]\npatch_size = 8\n[sweep]\n{job}\n')
        told = measure(f"a dry run of an array of {sizes.points} points", "launch", "--config", "job.toml", "--cluster",
                       "slurm", "--dry-run")
    width = max(len(what) for what, *_ in table)
    print(f"{'load':<{width}}  seconds  peak MB\n{'-' * (width + 18)}")
    for what, seconds, peak in table:
        print(f"{what:<{width}}  {seconds:>7.1f}  {peak or '':>7}")
    print(f"page of the report {page / 1e6:.1f} MB; the dry run prints {len(told.splitlines())} lines")


def evaluate_all(runs: Path, data: Path) -> None:
    """In this process, which has torch already; as the stage does it."""
    sys.path.insert(0, str(ROOT))
    from hpc_vsr.data.manifest import read_manifest
    from hpc_vsr.evaluation.evaluate import evaluate
    from hpc_vsr.experiment.settings import EvaluateSettings
    from hpc_vsr.runs.folder import RunFolder

    manifest = read_manifest(data)
    for path in sorted(runs.iterdir()):
        evaluate(RunFolder(path), manifest, EvaluateSettings(pictures=1))


def factors(points: int) -> dict[str, int]:
    """Three settings whose numbers of values multiply to about so many points."""
    side = round(points ** (1 / 3))
    return {"seed": side, "warmup_steps": side, "steps": round(points / side**2)}


if __name__ == "__main__":
    main()
