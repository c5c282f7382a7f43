"""The scripts of slurm/ and `launch` on a real SLURM of two nodes, with and without its accounting."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from repository import SAMPLE
from slurm_clone import SHORT, Clone, job_number, runs_of, write_sweep
from waiting import wait_until

pytestmark = pytest.mark.slurm
# what accounting cannot change is tried on one of the two clusters
accounting = pytest.mark.parametrize("cluster", ["accounting"], indirect=True, scope="module")
no_accounting = pytest.mark.parametrize("cluster", ["no-accounting"], indirect=True, scope="module")


@accounting
def test_sbatch_on_the_sample_ends_in_a_report(cluster, tmp_path):
    clone = Clone(tmp_path, cluster, Path("data/diamond_sample"))
    made = clone.sbatch("--recipe", "preprocess/diamond_sample.toml", script="slurm/preprocess.sbatch",
                        options=("--ntasks=2",))
    assert clone.wait(made) == "COMPLETED", clone.logs()
    assert SAMPLE.exists() and (tmp_path / "data" / "diamond_sample" / "dataset.json").exists()
    job = clone.sbatch("--data", "data/diamond_sample", "--out", "runs/sample", *SHORT, "--train.steps", 3,
                       "--evaluate.precision", "bf16")
    assert clone.wait(job) == "COMPLETED", clone.logs()
    report = json.loads((tmp_path / "runs" / "sample" / "report" / "report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["bicubic", "wiener", "sample"] * 2
    assert (tmp_path / "runs" / "sample" / "report" / "index.html").stat().st_size > 10_000


@accounting
def test_two_nodes_of_two_ranks_train_what_one_rank_trains(clone):
    alone = clone.train("alone", SHORT)
    together = clone.train("together", SHORT, ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--mem=3000"))
    assert clone.wait(alone) == clone.wait(together) == "COMPLETED", clone.logs()
    assert "4 ranks on cpu" in (clone.folder / "runs" / "together" / "log.txt").read_text()
    for (step, loss), (other_step, other) in zip(clone.losses("alone"), clone.losses("together"), strict=True):
        assert step == other_step and loss == pytest.approx(other, rel=1e-5)  # other samples would differ in the first
    one, four = clone.weights("alone"), clone.weights("together")
    for name in one:  # Adam divides by the size of a gradient, so that the rounding of one near zero shows
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("mpi", ["pmi2", "pmix"])
@no_accounting
def test_preprocessing_over_two_nodes_writes_the_serial_bytes(clone, clip, mpi):
    """pmi2 with MPICH, as pip brings it; pmix with Debian's Open MPI."""
    if mpi == "pmix":
        clone.environment["MPI4PY_LIBMPI"] = "libmpi.so.40"
    job = clone.sbatch("--video", clip, "--shards", 5, "--out", "data/clip", script="slurm/preprocess.sbatch",
                       options=("--nodes=2", "--ntasks=4"))
    assert clone.wait(job) == "COMPLETED", clone.logs()
    made = clone.folder / "data" / "clip"
    names = sorted(path.name for path in clone.dataset.iterdir())
    assert sorted(path.name for path in made.iterdir()) == names and len(names) == 6
    assert all((made / name).read_bytes() == (clone.dataset / name).read_bytes() for name in names)
    assert "4 ranks" in clone.logs()


@no_accounting
def test_an_upscaling_over_two_nodes_or_by_an_array_is_one_file(clone, clip, trained):
    """Of the second array an element is lost, and the job that joins makes its share."""
    files = {name: clone.folder / f"{name}.mp4" for name in ("alone", "ranks", "array", "failed")}

    def upscale(name: str, *options: str) -> str:
        return clone.sbatch("--run", trained, "--input", clip, "--output", files[name], "--segment", 8, "--precision",
                            "fp32", script="slurm/upscale.sbatch", options=options)
    jobs = [upscale("alone", "--ntasks=1"), upscale("ranks", "--nodes=2", "--ntasks=2")]
    for name in ("array", "failed"):
        parts = upscale(name, "--array=1,3", "--ntasks=1")
        if name == "failed":
            clone.cluster.ask("scancel", f"{parts}_3")
        jobs.append(upscale(name, f"--dependency=afterany:{parts}", "--ntasks=1"))
    for job in jobs:
        assert clone.wait(job) == "COMPLETED", clone.logs()
    assert len({path.read_bytes() for path in files.values()}) == 1
    logs = clone.folder / "logs"
    assert "2 ranks" in clone.logs() and "5 finished before" in (logs / f"upscale-{jobs[2]}.log").read_text()
    assert "3 finished before" in (logs / f"upscale-{jobs[3]}.log").read_text()


@no_accounting
def test_ranks_that_cannot_see_each_other_are_refused(clone, clip):
    """Plain srun starts four processes that each believe they are alone."""
    job = clone.sbatch("--video", clip, "--shards", 5, "--out", "data/clip", script="slurm/preprocess.sbatch",
                       options=("--nodes=2", "--ntasks=4", "--export=ALL,HPC_VSR_MPI=none"))
    assert clone.wait(job) == "FAILED"
    assert "MPI sees 1" in clone.logs() and "--mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI)" in clone.logs()
    assert not (clone.folder / "data" / "clip").exists()


@accounting
def test_a_preprocessing_that_is_told_to_end_goes_on_until_it_is_killed(clone):
    """A preempted job that ended in its grace time would count as failed, and SLURM would not requeue it."""
    job = clone.sbatch("--recipe", "preprocess/diamond_sample.toml", "--shards", 20, "--out", "data/told",
                       script="slurm/preprocess.sbatch", options=("--ntasks=1",))
    wait_until(lambda: list((clone.folder / "data").glob("told/*.h5")), "the first shard", clone.logs)
    clone.cluster.ask("scancel", "--signal=TERM", job)
    assert clone.wait(job) == "COMPLETED", clone.logs()
    again = clone.sbatch("--recipe", "preprocess/diamond_sample.toml", "--shards", 20, "--out", "data/killed",
                         script="slurm/preprocess.sbatch", options=("--ntasks=1",))
    wait_until(lambda: list((clone.folder / "data").glob("killed/*.h5")), "the first shard", clone.logs)
    clone.cluster.ask("scontrol", "requeue", again)
    assert clone.wait(again) == "COMPLETED", clone.logs()
    shards = sorted(path.name for path in (clone.folder / "data" / "told").iterdir())
    assert len(shards) == 21 and all((clone.folder / "data" / "told" / name).read_bytes()
                                     == (clone.folder / "data" / "killed" / name).read_bytes() for name in shards)


def test_of_an_array_with_a_failed_run_only_that_one_runs_again(clone):
    path = write_sweep(clone)
    # a stranger's file where the third run's checkpoints belong
    plan = clone.launch("--config", path, "--dry-run")
    third = next(line.split()[1] for line in plan.stdout.splitlines() if "seed-2-" in line)
    (clone.folder / third).mkdir(parents=True)
    (clone.folder / third / "checkpoints").write_text("in the way")

    clone.cluster.ask("scontrol", "update", "partitionname=debug", "state=down")  # nothing starts yet
    try:
        done, twice, table = clone.launch("--config", path), clone.launch("--config", path), clone.status(path)
    finally:
        clone.cluster.ask("scontrol", "update", "partitionname=debug", "state=up")
    assert done.returncode == 0 and "(6 of 6 runs)" in done.stdout, done.stderr
    assert "6 of 6 runs and the report" in twice.stdout and "nothing was submitted" in twice.stdout, twice.stdout
    assert "6 waiting" in table
    report = job_number(done.stdout, "report")
    assert clone.wait(report) == "FAILED", clone.logs()
    content = json.loads((clone.folder / "runs" / "six" / "report" / "report.json").read_text())
    assert [failed["run"] for failed in content["failed"]] == [Path(third).name]
    assert len(content["runs"]) == 5
    assert f"1 of 6 runs are missing or not finished: {Path(third).name}" in clone.logs()
    # an element that has failed is in the queue for a moment yet
    wait_until(lambda: "5 finished, 1 failed" in clone.status(path), "the failed run", lambda: clone.status(path))

    before = {name: (run / "log.txt").read_text() for name, run in runs_of(clone).items() if name != "seed-2"}
    (clone.folder / third / "checkpoints").unlink()
    done = clone.launch("--config", path)
    assert "(1 of 6 runs)" in done.stdout, done.stdout
    report = job_number(done.stdout, "report")
    assert clone.wait(report) == "COMPLETED", clone.logs()
    assert {name: (run / "log.txt").read_text() for name, run in runs_of(clone).items() if name != "seed-2"} == before
    content = json.loads((clone.folder / "runs" / "six" / "report" / "report.json").read_text())
    assert not content["failed"] and len(content["runs"]) == 6


@accounting
def test_the_pipeline_of_scripts_makes_data_trains_and_reports(clone):
    path = write_sweep(clone)
    done = clone.run("bash", "slurm/pipeline.sh", path.relative_to(clone.folder), "--train.steps", 2, MAX_RUNS="3",
                     TRAIN_OPTIONS="--cpus-per-task=1 --mem=1500", HPC_VSR_CPU="--cpus-per-task=1 --mem=1500")
    assert done.returncode == 0, done.stderr
    jobs = {line.split()[0]: line.split()[2].rstrip(",") for line in done.stdout.splitlines() if " job " in line}
    assert clone.wait(jobs["report"]) == "COMPLETED", clone.logs()
    assert clone.wait(jobs["training"]) == "COMPLETED" and len(runs_of(clone)) == 6


def test_launch_makes_a_missing_data_set_first_and_works_from_inside_a_job(clone, clip):
    recipe = clone.folder / "preprocess" / "clip.toml"
    recipe.write_text(f'video = "{clip}"\nshards = 5\nout = "data/clip"\n')
    job = clone.folder / "jobs" / "chain.toml"
    job.write_text(write_sweep(clone).read_text().replace(f'data = "{clone.dataset}"',
                                                          'data = "data/clip"\nrecipe = "preprocess/clip.toml"')
                   .replace("[0, 1, 2, 3, 4, 5]", "[0]") + "preprocess_ranks = 2\npreprocess_hours = 0.1\n")
    command = f"{sys.executable} -m hpc_vsr.launch --cluster slurm --config jobs/chain.toml"
    outer = clone.run("sbatch", "--parsable", "--output=logs/outer.log", "--cpus-per-task=3", "--wrap",
                      f"srun {command}").stdout.strip()
    assert clone.wait(outer) == "COMPLETED", clone.logs()
    text = (clone.folder / "logs" / "outer.log").read_text()
    assert "submitted: preprocessing" in text, text
    report = job_number(text, "report")
    assert clone.wait(report) == "COMPLETED", clone.logs()
    assert json.loads((clone.folder / "runs" / "chain" / "report" / "report.json").read_text())["runs"]


def test_what_is_missing_is_one_line(clone):
    (clone.folder / "elsewhere" / "logs").mkdir(parents=True)
    done = clone.run("bash", "-c", "cd elsewhere && sbatch --parsable --mem=100 --cpus-per-task=1 "
                                   "../slurm/train_delta.sbatch")
    assert clone.wait(done.stdout.strip()) == "FAILED"
    assert errors_of(clone.folder / "elsewhere" / "logs") == [
        f"{clone.folder}/elsewhere is not the folder of hpc-vsr: cd to it and submit from there"]

    clone.environment["PATH"] = "/usr/sbin:/usr/bin:/bin"  # without the environment that was installed
    clone.wait(clone.train("none", SHORT))
    error, = errors_of(clone.folder / "logs")
    assert "no python on " in error or "cannot run hpc-vsr (" in error
    assert "run 'make setup' here, or load your environment, and submit again" in error


def errors_of(logs: Path) -> list[str]:
    return [line.removeprefix("error: ") for log in logs.glob("*.log") for line in log.read_text().splitlines()
            if line.startswith("error: ")]


def test_an_array_without_its_numbers_is_told_them(clone):
    path = write_sweep(clone).relative_to(clone.folder)
    job = clone.sbatch(path, script="slurm/ablation.sbatch")
    assert clone.wait(job) == "FAILED"
    assert errors_of(clone.folder / "logs") == [
        f"{path} stands for 6 runs: sbatch --array=0-5%4 slurm/ablation.sbatch {path}"]
    assert [log.name for log in clone.folder.glob("logs/*.log")] == [f"ablation-{job}.log"]


def test_doctor_knows_the_cluster(clone):
    done = clone.run(sys.executable, "-m", "hpc_vsr.doctor")
    assert "pmi2 is among" in done.stdout and "test answers" in done.stdout and "debug* (2 nodes, gpu:2" in done.stdout
    job = clone.run("sbatch", "--parsable", "--ntasks=2", "--output=logs/doctor.log", "--wrap",
                    f"{sys.executable} -m hpc_vsr.doctor").stdout.strip()
    clone.wait(job)
    assert "2 ranks that see each other" in (clone.folder / "logs" / "doctor.log").read_text()
