"""The scripts of slurm/ and `launch` on a real SLURM of two nodes, with and without its accounting."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SAMPLE
from slurm_cluster import Cluster, running_cluster, wait_until

from hpc_vsr.checkpoint import load_checkpoint, newest_valid
from hpc_vsr.history import read_history

pytestmark = pytest.mark.slurm

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")  # a node failure is requeued
STEPS = 150
TINY = ("--train.precision", "fp32", "--model.n_2d", 1, "--model.n_3d", 1, "--train.batch_size", 4,
        "--train.patch_size", 16, "--train.validate_every", 0, "--train.validate_samples", 2, "--train.log_every", 1,
        "--train.warmup_steps", 2, "--train.device", "cpu")
SHORT = (*TINY, "--train.steps", 6)
LONG = (*TINY, "--train.steps", STEPS, "--train.checkpoint_every", 40)


@pytest.fixture(scope="module", params=[True, False], ids=["accounting", "no-accounting"])
def cluster(request) -> Iterator[Cluster]:
    with running_cluster(accounting=request.param) as started:
        yield started


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

    def wait(self, job: str, seconds: float = 240) -> str:
        """The state in which the job ended."""
        wait_until(lambda: self.state(job) in ENDED, f"job {job}", lambda: self.state(job) + self.logs(), seconds)
        return self.state(job)

    def logs(self) -> str:
        paths = sorted(path for path in (self.folder / "logs").rglob("*") if path.is_file() and path.suffix != ".pkl")
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def wait_for_step(self, name: str, step: int) -> None:
        metrics = self.folder / "runs" / name / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and (read_history(metrics) or [{"step": 0}])[-1]["step"] >= step,
                   f"step {step} of {name}", self.logs, 120)

    def ranks(self) -> list[int]:
        """Processes that train, as this machine numbers them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"python" in words[0] and b"train" in words and (folder / "cwd").readlink() == self.folder:
                    found.append(int(folder.name))
        return found

    def weights(self, name: str) -> dict:
        state = load_checkpoint(newest_valid(self.folder / "runs" / name / "checkpoints"))
        return {"step": state["step"], **state["network"]}

    def losses(self, name: str) -> list:
        return [(record["step"], record["loss"]) for record in read_history(
            self.folder / "runs" / name / "metrics.jsonl") if "loss" in record]


def waits_for(process: int, number: int) -> bool:
    """Whether a signal waits for a process that is held still."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return False
    pending, = re.findall(r"^ShdPnd:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (number - 1) & 1)


@pytest.fixture
def clone(cluster, dataset, tmp_path) -> Clone:
    return Clone(tmp_path, cluster, dataset)


@pytest.fixture(scope="module")
def uninterrupted(cluster, dataset, tmp_path_factory) -> Clone:
    """The run that nothing happened to."""
    clone = Clone(tmp_path_factory.mktemp("uninterrupted"), cluster, dataset)
    job = clone.train("whole", LONG)
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert clone.weights("whole")["step"] == STEPS
    return clone


def assert_equal_runs(clone: Clone, name: str, other: Clone, other_name: str) -> None:
    """The same weights to the bit, and the same losses at the same steps, none twice."""
    one, two = clone.weights(name), other.weights(other_name)
    assert one.keys() == two.keys()
    assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in one), clone.logs()
    assert clone.losses(name) == other.losses(other_name)


def test_sbatch_on_the_sample_ends_in_a_report(cluster, tmp_path):
    clone = Clone(tmp_path, cluster, Path("data/diamond_sample"))
    made = clone.sbatch("--recipe", "preprocess/diamond_sample.toml", script="slurm/preprocess.sbatch",
                        options=("--ntasks=2",))
    assert clone.wait(made) == "COMPLETED", clone.logs()
    assert SAMPLE.exists() and (tmp_path / "data" / "diamond_sample" / "dataset.json").exists()
    job = clone.sbatch("--data", "data/diamond_sample", "--out", "runs/sample", *TINY, "--train.steps", 3,
                       "--evaluate.precision", "bf16")
    assert clone.wait(job) == "COMPLETED", clone.logs()
    report = json.loads((tmp_path / "runs" / "sample" / "report" / "report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["bicubic", "wiener", "sample"] * 2
    assert (tmp_path / "runs" / "sample" / "report" / "index.html").stat().st_size > 10_000


def test_two_nodes_of_two_ranks_train_what_one_rank_trains(clone):
    alone = clone.train("alone", SHORT)
    together = clone.train("together", SHORT, ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--mem=3000"))
    assert clone.wait(alone) == clone.wait(together) == "COMPLETED", clone.logs()
    assert "4 ranks on cpu" in (clone.folder / "runs" / "together" / "log.txt").read_text()
    for (step, loss), (other_step, other) in zip(clone.losses("alone"), clone.losses("together"), strict=True):
        assert step == other_step and loss == pytest.approx(other, rel=1e-5)  # other samples would differ in the first
    one, four = clone.weights("alone"), clone.weights("together")
    for name in one:
        torch.testing.assert_close(torch.as_tensor(one[name]), torch.as_tensor(four[name]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mpi", ["pmi2", "pmix"])
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


def test_ranks_that_cannot_see_each_other_are_refused(clone, clip):
    """Plain srun starts four processes that each believe they are alone."""
    job = clone.sbatch("--video", clip, "--shards", 5, "--out", "data/clip", script="slurm/preprocess.sbatch",
                       options=("--nodes=2", "--ntasks=4", "--export=ALL,HPC_VSR_MPI=none"))
    assert clone.wait(job) == "FAILED"
    assert "MPI sees 1" in clone.logs() and "--mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI)" in clone.logs()
    assert not (clone.folder / "data" / "clip").exists()


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


def test_before_its_time_limit_a_run_saves_and_goes_on_after_a_requeue(clone, uninterrupted):
    job = clone.train("limited", LONG, ("--time=20",))
    clone.wait_for_step("limited", 20)
    # a limit so near that its signal is due; SLURM looks every 30 s, for which the training is held still
    rank, = clone.ranks()
    os.kill(rank, signal.SIGSTOP)
    clone.cluster.ask("scontrol", "update", f"jobid={job}", "TimeLimit=2")
    wait_until(lambda: waits_for(rank, signal.SIGUSR2) or "goes back to the queue" in clone.logs(), "the signal",
               clone.logs)
    with contextlib.suppress(ProcessLookupError):  # SLURM may have let it go on, and it has saved and ended
        os.kill(rank, signal.SIGCONT)
    wait_until(lambda: "goes back to the queue" in clone.logs(), "the requeue", clone.logs)
    wait_until(lambda: clone.run("scontrol", "update", f"jobid={job}", "TimeLimit=20").returncode == 0,
               "the job to be in the queue again", clone.logs)
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert "requeue 1 of 20" in clone.logs() and "resumed at step" in clone.logs()
    assert_equal_runs(clone, "limited", uninterrupted, "whole")


def test_a_launched_run_of_two_ranks_goes_on_after_its_signal(clone):
    path = clone.folder / "jobs" / "pair.toml"
    path.write_text(write_sweep(clone).read_text().replace("steps = 4", "steps = 150").replace(
        '[sweep]\n"train.seed" = [0, 1, 2, 3, 4, 5]\n', "").replace(
        "memory_gb = 1.5", "memory_gb = 3\nranks_per_node = 2"))
    done = clone.launch("--config", path)
    assert done.returncode == 0, done.stderr
    training, report = job_number(done.stdout, "training"), job_number(done.stdout, "report")
    clone.wait_for_step("pair", 10)
    clone.cluster.ask("scancel", "--signal=USR2", training)
    assert clone.wait(report) == "COMPLETED", clone.logs()
    assert clone.state(training) == "COMPLETED"
    assert "requeue 1 of 20" in clone.logs() and "resumed at step" in clone.logs() and "2 ranks" in clone.logs()
    assert [step for step, _ in clone.losses("pair")] == list(range(1, 151))
    assert json.loads((clone.folder / "runs" / "pair" / "report" / "report.json").read_text())["runs"]


def test_a_preempted_run_goes_on_when_the_node_is_free(clone, uninterrupted):
    job = clone.train("preempted", LONG, ("--partition=low",))
    clone.wait_for_step("preempted", 20)
    urgent = clone.run("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap", "true",
                       "--output=/dev/null").stdout.strip()
    assert clone.wait(urgent) == "COMPLETED"
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert "resumed at step" in clone.logs()
    assert_equal_runs(clone, "preempted", uninterrupted, "whole")


def test_a_run_requeued_by_its_user_goes_on(clone, uninterrupted):
    job = clone.train("requeued", LONG)
    clone.wait_for_step("requeued", 20)
    clone.cluster.ask("scontrol", "requeue", job)
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert "resumed at step" in clone.logs()
    assert_equal_runs(clone, "requeued", uninterrupted, "whole")


def test_a_run_on_a_node_that_loses_its_power_goes_on_elsewhere(clone, uninterrupted):
    job = clone.train("crashed", LONG, ("--nodelist=node1",))
    clone.wait_for_step("crashed", 50)
    clone.cluster.crash("node1")
    clone.cluster.ask("scontrol", "update", "nodename=node1", "state=down", "reason=crash")  # sooner than its time-out
    clone.cluster.ask("scontrol", "update", f"jobid={job}", "ReqNodeList=")
    try:
        assert clone.wait(job) == "COMPLETED", clone.logs()
    finally:
        clone.cluster.boot("node1")
        clone.cluster.wait_for_nodes()
    assert "resumed at step 40" in clone.logs()  # the last checkpoint before the crash
    assert_equal_runs(clone, "crashed", uninterrupted, "whole")


def test_two_lives_of_a_job_never_write_together(clone, uninterrupted):
    """SLURM loses sight of a node and starts the job elsewhere while its first life goes on."""
    job = clone.train("lost", LONG, ("--nodelist=node1",))
    clone.wait_for_step("lost", 50)
    clone.cluster.kill_slurmd("node1")
    clone.cluster.ask("scontrol", "update", "nodename=node1", "state=down", "reason=lost")
    clone.cluster.ask("scontrol", "update", f"jobid={job}", "ReqNodeList=")
    try:
        assert clone.wait(job) == "COMPLETED", clone.logs()
    finally:
        clone.cluster.crash("node1")
        clone.cluster.boot("node1")
        clone.cluster.wait_for_nodes()
    assert_equal_runs(clone, "lost", uninterrupted, "whole")


def test_a_cancelled_run_stays_cancelled_and_can_be_continued(clone, uninterrupted):
    job = clone.train("cancelled", LONG)
    clone.wait_for_step("cancelled", 20)
    clone.cluster.ask("scancel", job)
    assert clone.wait(job) == "CANCELLED"
    assert 20 <= clone.weights("cancelled")["step"] < STEPS, clone.logs()  # it saved when it was told to end
    again = clone.train("cancelled", LONG)
    assert clone.wait(again) == "COMPLETED", clone.logs()
    assert_equal_runs(clone, "cancelled", uninterrupted, "whole")


def test_a_run_goes_back_to_the_queue_only_so_often(clone):
    job = clone.train("bounded", (*LONG, "--resources.max_requeues", 0))
    clone.wait_for_step("bounded", 5)
    clone.cluster.ask("scancel", "--signal=USR2", job)
    assert clone.wait(job) == "FAILED"
    assert "not sent back to the queue: it was there 0 times (resources.max_requeues)" in clone.logs()
    assert clone.weights("bounded")["step"] >= 5


def test_a_second_job_on_a_run_is_told_who_has_it(clone):
    first = clone.train("one", LONG)
    clone.wait_for_step("one", 5)
    second = clone.train("one", LONG)
    assert clone.wait(second) == "FAILED"
    assert f"job {first}_0 (process" in clone.logs() and f"'scancel {first}_0'" in clone.logs()
    clone.cluster.ask("scancel", first)
    clone.wait(first)


def test_a_run_without_enough_memory_ends_and_is_continued_with_more(clone):
    settings = (*SHORT, "--train.checkpoint_every", 2)
    job = clone.train("starved", settings, ("--mem=150",))
    assert clone.wait(job) in ("FAILED", "OUT_OF_MEMORY")
    again = clone.train("starved", settings)
    assert clone.wait(again) == "COMPLETED", clone.logs()


def write_sweep(clone: Clone) -> Path:
    """Six runs of four steps."""
    path = clone.folder / "jobs" / "six.toml"
    path.write_text(f'''data = "{clone.dataset}"
[model]
n_2d = 1
n_3d = 1
skip = "wiener"
[train]
steps = 4
batch_size = 4
patch_size = 12
validate_every = 0
validate_samples = 2
checkpoint_every = 2
log_every = 1
warmup_steps = 1
device = "cpu"
[sweep]
"train.seed" = [0, 1, 2, 3, 4, 5]
[resources]
memory_gb = 1.5
hours = 0.2
report_hours = 0.2
''')
    return path


def job_number(told: str, stage: str) -> str:
    """Of a stage that `launch` says it has submitted."""
    return re.search(rf"{stage} (\d+)", told).group(1)


def runs_of(clone: Clone) -> dict[str, Path]:
    return {path.name.rpartition("-")[0]: path for path in (clone.folder / "runs" / "six").glob("seed-*")}


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
    assert "6 queued" in table
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
    assert "no python on node" in error or "cannot run hpc-vsr (" in error
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


def test_doctor_knows_the_cluster(clone):
    done = clone.run(sys.executable, "-m", "hpc_vsr.doctor")
    assert "pmi2 is among" in done.stdout and "test answers" in done.stdout and "debug* (2 nodes, gpu:2" in done.stdout
    job = clone.run("sbatch", "--parsable", "--ntasks=2", "--output=logs/doctor.log", "--wrap",
                    f"{sys.executable} -m hpc_vsr.doctor").stdout.strip()
    clone.wait(job)
    assert "2 ranks that see each other" in (clone.folder / "logs" / "doctor.log").read_text()
