"""Trainings that a real SLURM stops, in every way in which it does, and that go on without loss."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
from slurm_clone import LONG, SHORT, STEPS, Clone, job_number, write_sweep
from trainings import assert_equal_to_the_bit
from waiting import wait_until

pytestmark = pytest.mark.slurm
# A training never asks SLURM's accounting, so what happens to it is tried on a cluster that has none.
no_accounting = pytest.mark.parametrize("cluster", ["no-accounting"], indirect=True, scope="module")


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
    assert_equal_to_the_bit(clone.folder / "runs" / name, other.folder / "runs" / other_name)
    assert clone.losses(name) == other.losses(other_name)


def waits_for(process: int, number: int) -> bool:
    """Return True if a signal waits for a process that is held still."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return False
    pending, = re.findall(r"^ShdPnd:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (number - 1) & 1)


@no_accounting
def test_before_its_time_limit_a_run_saves_and_resumes_after_a_requeue(clone, uninterrupted):
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


def test_a_launched_run_of_two_ranks_resumes_after_its_signal(clone):
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


@no_accounting
def test_a_preempted_run_resumes_when_the_node_is_free(clone, uninterrupted):
    job = clone.train("preempted", LONG, ("--partition=low",))
    clone.wait_for_step("preempted", 20)
    urgent = clone.run("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap", "true",
                       "--output=/dev/null").stdout.strip()
    assert clone.wait(urgent) == "COMPLETED"
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert "resumed at step" in clone.logs()
    assert_equal_runs(clone, "preempted", uninterrupted, "whole")


@no_accounting
def test_a_run_requeued_by_its_user_resumes(clone, uninterrupted):
    job = clone.train("requeued", LONG)
    clone.wait_for_step("requeued", 20)
    clone.cluster.ask("scontrol", "requeue", job)
    assert clone.wait(job) == "COMPLETED", clone.logs()
    assert "resumed at step" in clone.logs()
    assert_equal_runs(clone, "requeued", uninterrupted, "whole")


@no_accounting
@pytest.mark.parametrize("what", ["loses its power", "is lost from sight"])
def test_a_run_resumes_when_its_node(clone, uninterrupted, what):
    """In the second case SLURM starts the job elsewhere while its first life goes on; they never write together."""
    node, name = clone.cluster.nodes[0], what.replace(" ", "_")
    job = clone.train(name, LONG, (f"--nodelist={node}",))
    clone.wait_for_step(name, 50)
    if what == "loses its power":
        clone.cluster.crash(node)
    else:
        clone.cluster.kill_slurmd(node)
    # sooner than its time-out would tell SLURM
    clone.cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    clone.cluster.ask("scontrol", "update", f"jobid={job}", "ReqNodeList=")
    try:
        assert clone.wait(job) == "COMPLETED", clone.logs()
    finally:
        clone.cluster.crash(node)
        clone.cluster.boot(node)
        clone.cluster.wait_for_nodes()
    if what == "loses its power":
        assert "resumed at step 40" in clone.logs()  # the last checkpoint before the crash
    assert_equal_runs(clone, name, uninterrupted, "whole")


@no_accounting
def test_a_cancelled_run_stays_cancelled_and_can_be_resumed(clone, uninterrupted):
    job = clone.train("cancelled", LONG)
    clone.wait_for_step("cancelled", 20)
    clone.cluster.ask("scancel", job)
    assert clone.wait(job) == "CANCELLED"
    assert 20 <= clone.weights("cancelled")["step"] < STEPS, clone.logs()  # it saved when it was told to end
    again = clone.train("cancelled", LONG)
    assert clone.wait(again) == "COMPLETED", clone.logs()
    assert_equal_runs(clone, "cancelled", uninterrupted, "whole")


@no_accounting
def test_a_run_goes_back_to_the_queue_only_so_often(clone):
    job = clone.train("bounded", (*LONG, "--resources.max_requeues", 0))
    clone.wait_for_step("bounded", 5)
    clone.cluster.ask("scancel", "--signal=USR2", job)
    assert clone.wait(job) == "FAILED"
    assert "not sent back to the queue, because it was requeued 0 times already" in clone.logs()
    assert clone.weights("bounded")["step"] >= 5


@no_accounting
def test_a_second_job_on_a_run_is_told_who_has_it(clone):
    first = clone.train("one", LONG)
    clone.wait_for_step("one", 5)
    second = clone.train("one", LONG)
    assert clone.wait(second) == "FAILED"
    assert f"job {first}_0 (process" in clone.logs() and f"'scancel {first}_0'" in clone.logs()
    clone.cluster.ask("scancel", first)
    clone.wait(first)


@no_accounting
def test_a_run_without_enough_memory_ends_and_resumes_with_more(clone):
    settings = (*SHORT, "--train.checkpoint_every", 2)
    job = clone.train("starved", settings, ("--mem=150",))
    assert clone.wait(job) in ("FAILED", "OUT_OF_MEMORY")
    again = clone.train("starved", settings)
    assert clone.wait(again) == "COMPLETED", clone.logs()
