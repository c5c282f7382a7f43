"""Sweeps and job files whose runs start from others: of the same file, in their order, or of another."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from stages import assert_refused, run_stage
from trainings import TINY, as_toml

from hpc_vsr.cluster.record import QueuedJobs
from hpc_vsr.cluster.site import Site
from hpc_vsr.cluster.submit import Chain
from hpc_vsr.experiment.jobfile import JobFile, add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.experiment.sweep import expand
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.parser import Parser

pytestmark = pytest.mark.slow

GRIDS = """
[[sweep]]
out = "first"
"model.n_2d" = [2]
[[sweep]]
out = "second"
"train.from" = ["runs/job/first"]
"train.lr" = [1e-4]
"""


@pytest.fixture
def job(dataset, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(f'data = "{dataset}"\n{as_toml([*TINY, "--train.steps", 2])}' + GRIDS)
    return path


def test_a_run_starts_from_one_of_the_same_job_file(job, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "runs" / "job" / "second" / "config.json").read_text())
    assert config["start"]["run"] == "first" and config["train"]["from"] == "runs/job/first"
    assert config["model"]["n_2d"] == 1  # the file gives it, and a depth may differ
    page = (tmp_path / "runs" / "job" / "report" / "index.html").read_text()
    assert "fine-tuned from first (SHA-256 " in page
    # finished runs need no start any more
    shutil.rmtree(tmp_path / "runs" / "job" / "first")
    job.write_text(job.read_text().replace('out = "first"\n"model.n_2d" = [2]\n[[sweep]]\n', ""))
    status = run_stage("status", "--config", job, cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert "1 finished" in status.stdout and "fine-tuned from first, step 2" in status.stdout, status.stdout


def test_a_run_whose_start_fails_is_not_trained(job, tmp_path):
    job.write_text(job.read_text().replace('"model.n_2d" = [2]', '"train.batch_size" = [3]').replace(
        "[[sweep]]", "[resources]\nranks_per_node = 2\n[[sweep]]", 1))
    done = run_stage("launch", "--config", job, "--cluster", "local", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "runs" / "job" / "second").exists(), done.stderr
    assert "runs/job/second: starts from runs/job/first, which is not finished" in done.stderr


def test_on_slurm_a_run_waits_for_the_one_it_starts_from(job, tmp_path):
    scripts = run_stage("launch", "--config", job, "--cluster", "slurm", "--dry-run", cwd=tmp_path).stdout
    _, first, second, report = re.split(r"### (?:training|training_2|report)\n", scripts)
    assert "--dependency" not in first and "#SBATCH --dependency=afterok:TRAINING\n" in second
    assert "#SBATCH --dependency=afterany:TRAINING:TRAINING_2\n" in report
    assert "#SBATCH --kill-on-invalid-dep=yes" in second


def test_runs_are_submitted_after_those_they_start_from(dataset, tmp_path):
    points = [{"train.seed": [1, 2]}, {"out": ["b"], "train.from": [str(tmp_path / "runs" / "c")]}]
    experiment = Experiment(data=dataset, out=tmp_path / "runs")
    points = expand(experiment, [{"out": ["c"]}, *points], "job")
    chain = Chain(JobFile(data=dataset, out=experiment.out), points, Site(), QueuedJobs({}))
    assert [[run.out.name[0] for run in wave] for wave in chain.waves] == [["c", "s", "s"], ["b"]]
    assert chain.training_step(chain.waves[1], ["7", "8_0"]).parameters["dependency"] == "afterok:7:8_0"


def test_a_start_that_comes_later_or_is_missing_fails_by_itself(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = Parser("test", "")
    add_job_file(parser)
    text = job.read_text()
    job.write_text(text + '[[sweep]]\nout = "third"\n"train.from" = ["runs/job/fourth"]\n'
                          '[[sweep]]\nout = "fourth"\n"train.seed" = [3]\n'
                          '[[sweep]]\n"train.from" = ["runs/a", "runs/b"]\n')
    _, runs, _ = read_job(parser, ["--config", str(job)])
    reasons = {run.out.name.rpartition("-")[0] or run.out.name: run.impossible for run in runs}
    assert not reasons["first"] and not reasons["second"] and not reasons["fourth"]
    assert "runs/job/fourth is made by a later [[sweep]]" in reasons["third"]
    assert "train.from: runs/a/config.json: not found" in reasons["from-a"] and "runs/b" in reasons["from-b"]
    assert_refused(run_stage("train", "--config", job, "--point", 2, cwd=tmp_path), "put that one first")


def test_the_folder_of_a_run_does_not_depend_on_whether_its_start_exists(dataset, trained, tmp_path):
    grid = {"train.from": [str(tmp_path / "start")]}
    experiment = Experiment(data=dataset, out=tmp_path / "runs")
    before = expand(experiment, [grid], "job")[0]
    shutil.copytree(trained, tmp_path / "start")
    after = expand(experiment, [grid], "job")[0]
    assert before.impossible and not after.impossible and before.out == after.out
    assert after.model.skip == "wiener"  # that of the start


def test_a_default_that_is_given_makes_a_run_of_its_own(trained, job, tmp_path):
    """What is not given is as in the start, which is no default: n_2d of `trained` is 1, and 5 is the default."""
    start = RunFolder(trained).path
    plain = Experiment(data=trained.parent, train=TrainSettings(from_=start), out=tmp_path / "runs")
    grids = [{"out": ["one"], "train.lr": [1e-4]}, {"out": ["two"], "train.lr": [1e-4], "model.n_2d": [5]}]
    runs = expand(plain, grids, "job.toml", {"model.n_3d"})
    assert [(run.out.name, run.model.n_2d) for run in runs] == [("one", 1), ("two", 5)]
