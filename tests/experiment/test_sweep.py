"""Sweeps: a grid is expanded, each point is trained once, and one report compares them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from repository import ROOT
from stages import assert_refused, run_stage
from trainings import TINY, as_toml

from hpc_vsr.experiment.jobfile import JobFile, add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.sweep import expand, read_sweep
from hpc_vsr.system.config import read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.parser import Parser

pytestmark = pytest.mark.slow

SETTINGS = (*TINY, "--train.steps", 4, "--train.batch_size", 2, "--train.validate_every", 2, "--train.warmup_steps", 1,
            "--train.lr", 1e-4, "--evaluate.pictures", 1, "--evaluate.published", "diamond")
GRIDS = """
[[sweep]]
"train.lr" = [1e-4, 1e-3]
"train.seed" = [0, 1]
[[sweep]]
"model.name" = ["delta", "previous"]
"""


def job_text(data: Path) -> str:
    return f'data = "{data}"\n{as_toml(SETTINGS)}'


@pytest.fixture
def job(dataset, tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(job_text(dataset) + GRIDS)
    return path


def test_a_grid_is_the_product_and_several_are_joined_without_doubles(job, dataset, tmp_path):
    experiment = Experiment(data=dataset, out=tmp_path / "runs")
    points = expand(experiment, [{"train.lr": [1e-4, 1e-3], "train.seed": [0, 1]}, {"train.seed": [0, 2]}], "job")
    assert len(points) == 5  # the default learning rate is 1e-3: (1e-3, seed 0) is in both grids
    points = expand(experiment, [{"model.n_2d": [4, 5]}, {"model.n_3d": [4, 5, 6]}], "job")
    assert [(point.model.n_2d, point.model.n_3d) for point in points] == [(4, 5), (5, 5), (5, 4), (5, 6)]
    assert len({point.out for point in points}) == 4 and all(point.out.parent == experiment.out for point in points)
    again = expand(experiment, [{"model.n_3d": [5]}], "job")[0]
    assert again.out.name.split("-")[-1] == points[1].out.name.split("-")[-1]  # the same run has the same fingerprint
    assert expand(experiment, [], "job") == [experiment]


def test_a_run_is_found_again_whatever_its_folder_was_called(dataset, tmp_path, monkeypatch):
    experiment = Experiment(data=dataset, out=tmp_path / "runs")
    first = expand(experiment, [{"model.n_2d": [5], "train.seed": [0]}], "job")[0].out
    first.mkdir(parents=True)
    for grid in ({"train.seed": [0], "model.n_2d": [5]}, {"model.n_2d": [5]}, {"train.clip_norm": [0]},
                 {"train.ema_decay": [0.999], "train.seed": [0]}):
        assert expand(experiment, [grid], "job")[0].out == first
    monkeypatch.chdir(dataset.parent)
    near = dataclasses.replace(experiment, data=Path(dataset.name))
    assert expand(near, [{"model.n_2d": [5]}], "job")[0].out == first
    assert len(expand(experiment, [{"train.ema_decay": [0, 0.0]}], "job")) == 1


def test_the_command_line_overrides_the_sweep(job, tmp_path):
    done = run_stage("train", "--config", job, "--train.lr", "1e-4", "--point", 3, "--dry-run", cwd=tmp_path)
    assert_refused(done, "points 0 to 2, found 3")  # two seeds and two networks, of which one is there twice


def test_other_data_under_the_same_name_are_trained_on_anew(dataset, clip, tmp_path):
    shutil.copytree(dataset, tmp_path / "d")
    (tmp_path / "one.toml").write_text(job_text(tmp_path / "d") + "[sweep]\n'train.seed' = [0, 1]")
    arguments = ("launch", "--config", "one.toml", "--cluster", "debug")
    assert run_stage(*arguments, cwd=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "d")
    made = run_stage("preprocess", "--video", clip, "--shards", 5, "--degradation.sigma", 2, "--out", tmp_path / "d")
    assert made.returncode == 0
    again = run_stage(*arguments, cwd=tmp_path)
    assert again.returncode == 1 and "2 runs, 0 finished before" in again.stderr
    assert "was trained on another data set" in again.stderr


def test_a_grid_of_one_run_names_its_folder(dataset, tmp_path):
    experiment = Experiment(data=dataset, out=tmp_path / "runs")
    points = expand(experiment, [{"out": ["deconvolved"], "model.skip": ["wiener"]}, {"out": ["plain"]}], "job")
    assert [(point.out, point.model.skip) for point in points] == [
        (tmp_path / "runs" / "deconvolved", "wiener"), (tmp_path / "runs" / "plain", "none")]


def runs_of(job: Path, *given: str) -> list[Experiment]:
    parser = Parser("test", "")
    add_job_file(parser, JobFile)
    return read_job(parser, ["--config", str(job), *given])[1]


def test_a_value_given_on_the_command_line_leaves_the_runs_that_have_it():
    demo = ROOT / "jobs" / "demo.toml"
    delta, compact = runs_of(demo)
    assert [run.out for run in (delta, compact)] == [Path("runs/demo/delta"), Path("runs/demo/compact")]
    assert runs_of(demo, "--model.name", "delta") == [delta]
    assert runs_of(demo, "--model.name", "compact") == [compact]
    assert [(run.out, run.train.steps) for run in runs_of(demo, "--train.steps", "30", "--out", "runs/short")] == [
        (Path("runs/short/delta"), 30), (Path("runs/short/compact"), 30)]
    with pytest.raises(InputError, match="'delta', 'compact', not 'previous'"):
        runs_of(demo, "--model.name", "previous")
    [parallel5] = runs_of(ROOT / "jobs" / "paper_diamond.toml", "--model.name", "parallel5")
    assert parallel5.model.name == "parallel5" and list(parallel5.model.output_range) == [0, 255]


@pytest.mark.parametrize("text, words", [
    ("[sweep]\nout = 'a/b'\n'train.seed' = [1]", ["cannot be named 'a/b'"]),
    ("[sweep]\nout = 'report'\n'train.seed' = [1]", ["cannot be named 'report'"]),
    ("[sweep]\nout = 'a'\n'train.seed' = [1, 2]", ["names one run", "'train.seed' has several values"]),
    ("[[sweep]]\nout = 'a'\n'train.seed' = [1]\n[[sweep]]\nout = 'a'\n'train.seed' = [2]", ["the same name"]),
    ("[sweep]\n'model.n_2e' = [1, 2]", ["'model.n_2e': is not a setting", "n_2d"]),
    ("[sweep]\nout = ['a']", ["only settings of model and train that change"]),
    ("[sweep]\n'evaluate.split' = ['val']", ["only settings of model and train that change"]),
    ("[sweep]\n'train.num_workers' = [0, 2]", ["that change what is learned"]),
    ("[sweep]\n'model.recursive_streams' = [2, 3]", ["recursive_streams", "a list in brackets, found 2"]),
    ("[sweep]\n'model.output_range' = [[0, 'b']]", ["output_range", "a number, found 'b'"]),
    ("[sweep]\n'train.lr' = [inf]", ["lr", "a finite number"]),
    ("[sweep]\n'model.n_2d' = 3", ["expected a list of values, found 3"]),
    ("[sweep]\nmodel.n_2d = [3]", ["put the whole name in quotes", '"model.n_2d" = [...]']),
    ("[sweep]\n'model.n_2d' = [1, 'two']", ["n_2d", "a whole number", "'two'"]),
    ("[sweep]\n'train.seed' = [" + ",".join(map(str, range(1001))) + "]", ["more than 1000 points"]),
])
def test_a_wrong_sweep_is_refused(dataset, tmp_path, text, words):
    (tmp_path / "grid.toml").write_text(job_text(dataset) + text)
    done = run_stage("launch", "--config", "grid.toml", "--cluster", "debug", cwd=tmp_path)
    assert_refused(done, "grid.toml", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.toml"]


def test_train_takes_one_point_of_a_sweep(job, tmp_path):
    assert_refused(run_stage("train", "--config", job, cwd=tmp_path), "a sweep of 5 points", "--point 0 to 4")
    assert_refused(run_stage("train", "--config", job, "--point", 5, cwd=tmp_path), "points 0 to 4, found 5")
    done = run_stage("train", "--config", job, "--point", 4, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "network  previous, 73,706 parameters" in done.stdout


def test_an_impossible_point_fails_by_its_name_and_the_others_are_trained(dataset, tmp_path):
    """One contradicts itself and one does not suit the data; a value of another type is a mistake of the file."""
    (tmp_path / "grid.toml").write_text(job_text(dataset) + "[sweep]\n'train.first_stage_steps' = [0, 4]\n"
                                        "'train.patch_size' = [12, 4000]\n")
    done = run_stage("launch", "--config", "grid.toml", "--cluster", "debug", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    names = {"first_stage_steps-4_patch_size-12": "must be fewer than the 4 steps",
             "first_stage_steps-4_patch_size-4000": "must be fewer than the 4 steps",
             "first_stage_steps-0_patch_size-4000": "4000 LR pixels are more than the frames have"}
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: runs/grid/")]
    assert len(warned) == 3
    for name, reason in names.items():
        assert any(f"runs/grid/{name}-" in line and reason in line for line in warned), warned
    content = json.loads((tmp_path / "runs" / "grid" / "report" / "report.json").read_text())
    assert [run["name"].rpartition("-")[0] for run in content["runs"]] == ["first_stage_steps-0_patch_size-12"]
    assert {item["run"].rpartition("-")[0] for item in content["failed"]} == set(names)
    shown = run_stage("status", "--config", "grid.toml", cwd=tmp_path, environment={"PATH": "/nowhere"}).stdout
    assert "must be fewer than the 4 steps" in shown and "1 finished" in shown
    assert_refused(run_stage("train", "--config", "grid.toml", "--point", 2, cwd=tmp_path), "first_stage_steps-4",
                   "must be fewer than the 4 steps")


def test_a_dry_run_for_slurm_begins_with_the_plan_and_its_memory(job, tmp_path):
    job.write_text(job.read_text().replace("[[sweep]]", "[resources]\nmemory_gb = 3\n[[sweep]]", 1))
    text = run_stage("launch", "--config", job, "--cluster", "slurm", "--dry-run", cwd=tmp_path).stdout
    assert 0 < text.index("memory   up to ") < text.index("asks for 3 GB of memory a node") < text.index("### training")


def test_an_array_on_slurm_has_an_element_for_each_point(job, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "slurm", "--dry-run", "--max_parallel", 3, cwd=tmp_path)
    assert done.returncode == 0 and "\n#SBATCH --array=0-4%3\n" in done.stdout
    points = [line for line in done.stdout.splitlines() if line.strip().partition(" ")[2].startswith("runs/grid/")]
    assert [line.split()[0] for line in points] == ["0", "1", "2", "3", "4"]
    assert not (tmp_path / "runs").exists()


def test_a_sweep_is_trained_once_and_reported_together(job, dataset, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "debug", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "grid"
    content = json.loads((folder / "report" / "report.json").read_text())
    assert len(content["runs"]) == 5 and not content["failed"]
    text = (folder / "report" / "report.md").read_text()
    assert "and 1 other seed" in text and " ± " in text  # the two seeds are one row with their spread
    assert "| name " in text and "| previous |" in text and "The paper's Diamond table" in text
    assert [row["network"] for row in content["published"]] == ["delta", "parallel5", "parallel5", "raw"]
    assert len(content["published"][0]["ours"]) == 4
    page = (folder / "report" / "index.html").read_text()
    assert all(f'id="{section}"' in page for section in ("comparison", "ablation", "published"))

    # One run is lost: launched again, only it is trained, and the others are not measured again
    runs = sorted(path for path in folder.iterdir() if path.name != "report")
    shutil.rmtree(runs[0])
    left = [runs[1] / ".lock", runs[2] / ".evaluate.lock"]  # by processes that were killed in their last moment
    for lock in left:
        lock.touch()
    stamps = {run: (run / "checkpoints").stat().st_mtime_ns for run in runs[1:]}
    again = run_stage("launch", "--config", job, "--cluster", "debug", cwd=tmp_path)
    assert again.returncode == 0 and "5 runs, 4 finished before" in again.stderr, again.stderr
    assert again.stderr.count("already measured") == 4 and not any(lock.exists() for lock in left)
    assert {run: (run / "checkpoints").stat().st_mtime_ns for run in runs[1:]} == stamps and runs[0].is_dir()


def test_a_run_that_fails_is_named_and_the_others_are_reported(job, tmp_path):
    names = run_stage("launch", "--config", job, "--cluster", "debug", "--dry-run", cwd=tmp_path).stdout
    broken = next(line.split()[1] for line in names.splitlines() if "name-previous" in line)
    (tmp_path / broken).mkdir(parents=True)
    (tmp_path / broken / "foreign.txt").write_text("this folder is not ours")
    done = run_stage("launch", "--config", job, "--cluster", "debug", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    name = broken.split("/")[-1]
    assert f"1 of 5 runs are missing or not finished: {name}" in done.stderr
    content = json.loads((tmp_path / "runs" / "grid" / "report" / "report.json").read_text())
    assert [item["run"] for item in content["failed"]] == [name] and len(content["runs"]) == 4


def test_the_sweeps_of_a_file_are_read(job):
    content = read_toml(job)
    assert read_sweep(content, str(job)) == [{"train.lr": [1e-4, 1e-3], "train.seed": [0, 1]},
                                             {"model.name": ["delta", "previous"]}]
    assert read_sweep({}, "job") == []


@pytest.mark.parametrize("given", ["--train.lr=0.1", "--train.lr 0.1", "--model.name delta", "--model.n-2d 2"])
def test_a_setting_given_on_the_command_line_is_not_swept_however_it_is_spelt(job, given):
    job.write_text(job.read_text() + '[[sweep]]\n"model.n_2d" = [1, 2]\n')
    for settings in (JobFile, Experiment):
        parser = Parser("test", "")
        add_job_file(parser, settings)
        _, runs, _ = read_job(parser, ["--config", str(job), *given.split()])
        swept = {name for name, values in (("lr", {run.train.lr for run in runs}),
                                           ("name", {run.model.name for run in runs}),
                                           ("n_2d", {run.model.n_2d for run in runs})) if len(values) > 1}
        assert swept == {"lr", "name", "n_2d"} - {given.split("=")[0].split()[0].split(".")[1].replace("-", "_")}
