"""A clone of the project on the cluster of the tests, and the commands that a user types in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from processes import list_processes
from repository import ROOT
from slurm_cluster import Cluster
from trainings import TINY, as_toml, final_weights
from waiting import wait_until

from hpc_vsr.runs.history import read_history

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")  # a node failure is requeued
STEPS = 150
SHORT = (*TINY, "--train.patch_size", 16, "--train.validate_every", 0, "--train.validate_samples", 2)
LONG = (*SHORT, "--train.steps", STEPS, "--train.checkpoint_every", 40)


class Clone:
    """A folder as a user has it after cloning, and the commands that are typed in it."""

    def __init__(self, folder: Path, cluster: Cluster, dataset: Path):
        self.folder, self.cluster, self.dataset = folder, cluster, dataset
        for name in ("hpc_vsr", "jobs", "slurm", "preprocess"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "logs").mkdir()
        self.environment = {**cluster.environment, "OMP_NUM_THREADS": "1"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def run(self, *command, **more) -> subprocess.CompletedProcess:
        return subprocess.run([str(word) for word in command], cwd=self.folder, env={**self.environment, **more},
                              capture_output=True, text=True, timeout=300, check=False)

    def launch(self, *arguments) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "hpc_vsr.launch", "--cluster", "slurm", *arguments)

    def status(self, job_file: Path) -> str:
        done = self.run(sys.executable, "-m", "hpc_vsr.status", "--config", job_file)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sbatch(self, *arguments, script="slurm/train_delta.sbatch", options=()) -> str:
        """Number of the job. One core and little memory, for the nodes are small."""
        done = self.run("sbatch", "--parsable", "--cpus-per-task=1", "--mem=2000", *options, script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def train(self, name: str, settings, options=()) -> str:
        """Training without a report, as an array of one element."""
        return self.sbatch("jobs/delta.toml", "--data", self.dataset, "--out", f"runs/{name}", *settings,
                           script="slurm/ablation.sbatch", options=("--array=0", *options))

    def state(self, job: str) -> str:
        """As SLURM's controller has it; of an array, of its elements."""
        text = self.cluster.ask("scontrol", "--oneliner", "show", "job", job, check=False)
        states = [word.partition("=")[2] for word in text.split() if word.startswith("JobState=")]
        return next((state for state in states if state not in ENDED), states[0] if states else "UNKNOWN")

    def wait(self, job: str, seconds: float = 400) -> str:
        """The state in which the job ended."""
        wait_until(lambda: self.state(job) in ENDED, f"job {job}", lambda: self.state(job) + self.logs(), seconds)
        return self.state(job)

    def logs(self) -> str:
        paths = sorted(path for path in (self.folder / "logs").rglob("*") if path.is_file() and path.suffix != ".pkl")
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def wait_for_step(self, name: str, step: int) -> None:
        metrics = self.folder / "runs" / name / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and (read_history(metrics) or [{"step": 0}])[-1]["step"] >= step,
                   f"step {step} of {name}", self.logs, 200)

    def ranks(self) -> list[int]:
        """Processes that train, as this machine numbers them."""
        return [number for number, (words, folder) in list_processes().items()
                if "python" in words[0] and "train" in words and folder == self.folder]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return final_weights(self.folder / "runs" / name)

    def losses(self, name: str) -> list:
        return [(record["step"], record["loss"]) for record in read_history(
            self.folder / "runs" / name / "metrics.jsonl") if "loss" in record]


def write_sweep(clone: Clone) -> Path:
    """Six runs of four steps."""
    path = clone.folder / "jobs" / "six.toml"
    settings = (*SHORT, "--train.steps", 4, "--train.patch_size", 12, "--train.warmup_steps", 1)
    path.write_text(f'''data = "{clone.dataset}"
{as_toml(settings)}[sweep]
"train.seed" = [0, 1, 2, 3, 4, 5]
[resources]
memory_gb = 1.5
hours = 0.2
report_hours = 0.2
''')
    return path


def job_number(told: str, stage: str) -> str:
    """Return the number of the job of a stage, as `launch` says it."""
    return re.search(rf"{stage} (\d+)", told).group(1)


def runs_of(clone: Clone) -> dict[str, Path]:
    return {path.name.rpartition("-")[0]: path for path in (clone.folder / "runs" / "six").glob("seed-*")}
