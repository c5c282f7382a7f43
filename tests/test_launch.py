"""launch: on this machine for real, and the text of what SLURM would be given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, assert_refused, run_stage
from test_train import assert_equal_to_the_bit

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def job(dataset, tmp_path) -> Path:
    """A job file of six steps on two ranks."""
    path = tmp_path / "tiny.toml"
    settings = dict(zip(TINY[::2], TINY[1::2], strict=True))
    text = f'data = "{dataset}"\n'
    for section in ("model", "train"):
        text += f"[{section}]\n" + "".join(f"{name.split('.')[1]} = {json.dumps(value)}\n"
                                          for name, value in settings.items() if name.startswith(f"--{section}."))
    path.write_text(text + "[resources]\nranks_per_node = 2\n")
    return path


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_job_file_ends_in_a_report(job, tmp_path, cluster):
    done = run_stage("launch", "--config", job, "--cluster", cluster, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    run = tmp_path / "runs" / "tiny"
    content = json.loads((run / "report" / "report.json").read_text())
    assert [row["method"] for row in content["rows"]] == ["bicubic", "wiener", "tiny"] * 2
    assert "| Wiener" in done.stdout and "report: runs/tiny/report/index.html" in done.stdout
    assert f"{2 if cluster == 'local' else 1} rank" in done.stderr  # the log of rank 0 is shown meanwhile


def test_what_launch_trains_is_what_train_trains(job, trained, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "debug", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(tmp_path / "runs" / "tiny", trained)


def test_launched_again_it_says_that_training_is_finished(job, tmp_path):
    for _ in range(2):
        done = run_stage("launch", "--config", job, "--cluster", "local", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "finished before, 6 steps" in done.stderr


def test_a_mistake_in_the_job_is_one_line_with_status_2(job, tmp_path):
    refused = run_stage("launch", "--config", job, "--cluster", "local", "--train.batch_size", 3, cwd=tmp_path)
    assert_refused(refused, "train.batch_size: 3 cannot be dealt equally to 2 ranks")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "logs").exists()


def test_what_sbatch_refuses_is_one_line(job, tmp_path):
    """A stand-in for sbatch that answers as SLURM 22.05 does."""
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    done = run_stage("launch", "--config", job, "--cluster", "slurm", cwd=tmp_path,
                     environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert_refused(done, "sbatch refused the job", "invalid partition specified: gpu")


@pytest.mark.parametrize("arguments, words", [
    (("--cluster", "slurmm"), ["--cluster", "slurm"]),
    (("--cluster", "local", "--resources.nodes", "2"), ["2 nodes need --cluster slurm"]),
    (("--cluster", "local", "--resources.gpus_per_node", "1"), ["2 ranks on 1 GPUs"]),
    (("--cluster", "local", "--data", "nowhere"), ["nowhere/dataset.json"]),
    ((), ["--cluster"]),
])
def test_a_wrong_command_line_is_refused(job, tmp_path, arguments, words):
    assert_refused(run_stage("launch", "--config", job, *arguments, cwd=tmp_path), *words)


def test_slurm_without_srun_is_refused(job, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "slurm", cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert_refused(done, "srun is not on this machine")


def test_a_local_dry_run_touches_nothing(job, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run_stage("launch", "--config", job, "--cluster", "local", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "2 ranks on this machine" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["generic"])
def test_the_scripts_for_a_site_are_these(tmp_path, name):
    """The whole sbatch text; after a change on purpose, write the new text to the golden file."""
    done = run_stage("launch", "--config", ROOT / "jobs" / "delta.toml", "--cluster", "slurm", "--dry-run",
                     "--site", ROOT / "slurm" / "sites" / f"{name}.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    text = done.stdout.replace(str(tmp_path), "/home/user/hpc-vsr").replace(sys.executable, "/home/user/bin/python")
    assert text == (GOLDEN / f"sbatch_{name}.txt").read_text()


def test_the_scripts_say_what_a_cluster_needs_to_hear():
    text = (GOLDEN / "sbatch_generic.txt").read_text()
    training, report = text.split("### report")
    for line in ("#SBATCH --requeue", "#SBATCH --signal=USR2@120", "#SBATCH --gpus-per-node=1",
                 "#SBATCH --open-mode=append", "#SBATCH --partition=gpu", "source .venv/bin/activate",
                 "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"):
        assert f"\n{line}\n" in training
    assert "--kill-on-bad-exit=1 --wait=60 --gpu-bind=none" in training
    assert "\n#SBATCH --dependency=afterany:TRAINING\n" in report and "\n#SBATCH --partition=cpu\n" in report
    assert "gpus" not in report


@pytest.mark.parametrize("text, words", [
    ("partition = 'gpu'", ["'partition'", "valid are: cpu, gpu, setup"]),
    ("setup = 'module load'", ["a list of shell lines"]),
    ("gpu = 'gpuA100x4'", ["'gpu' is a section"]),
    ("[gpu]\npartition = 3", ["gpu: partition", "a text in quotes"]),
    ("[gpu]\npartitions = 'a'", ["gpu", "did you mean 'partition'"]),
])
def test_a_mistake_in_a_site_file_is_refused(job, tmp_path, text, words):
    (tmp_path / "site.toml").write_text(text)
    done = run_stage("launch", "--config", job, "--cluster", "slurm", "--site", "site.toml", "--dry-run", cwd=tmp_path)
    assert_refused(done, "site.toml", *words)
