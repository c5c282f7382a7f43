"""A life of a SLURM job with a stand-in for scontrol; tests/cluster/test_slurm.py has the real one."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from repository import ROOT
from stages import assert_refused, run_stage

from hpc_vsr import job
from hpc_vsr.cluster import jobs, requeue
from hpc_vsr.cluster.requeue import Life, requeue_or_fail
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.report import write
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import save_checkpoint
from hpc_vsr.system.errors import Failed, Stopped

SCONTROL = """#!/bin/sh
echo "$@" >>{calls}
case "$*" in
    *requeue*) exit {requeue} ;;
    *show*) echo "JobId=7 JobState={state} Restarts=0" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Call it with what scontrol is to answer; it gives the file of the calls."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(requeue, "PAUSES", (0, 0))
    calls = tmp_path / "calls"
    calls.touch()

    def answer(status: int = 0, state: str = "RUNNING"):
        (tmp_path / "scontrol").write_text(SCONTROL.format(calls=calls, requeue=status, state=state))
        (tmp_path / "scontrol").chmod(0o755)
        return calls

    return answer


def run_at(folder, step: int) -> RunFolder:
    run = RunFolder(folder / "run")
    run.checkpoints.folder.mkdir(parents=True, exist_ok=True)
    if step:
        save_checkpoint(run.checkpoints, {"step": step, "x": torch.zeros(1)}, step, keep=2, best_score=None)
    return run


def stop(*_) -> None:
    raise Stopped("saved")


def test_a_stopped_training_that_got_on_goes_back(slurm, tmp_path, capfd):
    calls, run = slurm(), run_at(tmp_path, 3)

    def train():
        run_at(tmp_path, 5)
        stop()

    with pytest.raises(Stopped):
        Life(run, 2).run_until_stopped(train)
    assert calls.read_text().splitlines()[1:] == ["requeue incomplete 7"]
    assert "saved at step 5; job 7 goes back to the queue (requeue 1 of 2)" in capfd.readouterr().err


def test_a_life_without_a_step_is_the_last(slurm, tmp_path):
    calls = slurm()
    with pytest.raises(Failed, match="stopped at step 3 without progress"):
        Life(run_at(tmp_path, 3), 2).run_until_stopped(stop)
    assert not calls.read_text()


def test_a_job_that_was_started_too_often_does_not_train(slurm, tmp_path, monkeypatch):
    slurm()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(Failed, match="SLURM has restarted this job 3 times, and resources.max_requeues is 2"):
        Life(run_at(tmp_path, 0), 2).run_until_stopped(lambda: pytest.fail("it trained"))


def test_a_cancelled_job_is_not_brought_back(slurm, capfd):
    calls = slurm(0, "COMPLETING")
    requeue_or_fail("run", 2)
    assert "requeue" not in calls.read_text()
    told = capfd.readouterr().err
    assert "job 7 is COMPLETING: someone has cancelled or requeued it" in told and "goes back" not in told


def test_a_busy_controller_is_asked_again_and_its_refusal_told(slurm):
    calls = slurm(1, "RUNNING")
    with pytest.raises(Failed, match="scontrol requeue incomplete 7"):
        requeue_or_fail("run", 2)
    assert calls.read_text().count("requeue") == 3


def test_of_an_array_only_its_element_goes_back(slurm, monkeypatch):
    """SLURM_JOB_ID of one element is the number of the whole array."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    calls = slurm()
    requeue_or_fail("run", 2)
    assert calls.read_text().splitlines()[1:] == ["requeue incomplete 7_2"]


def test_a_report_of_many_runs_goes_back_before_its_time_limit(slurm, tmp_path, monkeypatch):
    calls, experiments = slurm(), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
        experiments.append(Experiment(data=tmp_path, out=tmp_path / name))
    monkeypatch.setattr(jobs, "read_manifest", lambda _: None)
    monkeypatch.setattr(jobs, "evaluate_if_needed", lambda *_: os.kill(os.getpid(), signal.SIGUSR2))
    monkeypatch.setattr(write, "write_report", lambda *_: pytest.fail("it was reported"))
    before = signal.getsignal(signal.SIGUSR2)
    try:
        with pytest.raises(Stopped):
            job._evaluate_and_report(jobs.ReportJob(tuple(experiments), tmp_path / "report"), 2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert calls.read_text().splitlines()[-1] == "requeue incomplete 7"


def test_outside_of_slurm_and_without_srun_a_job_is_refused(tmp_path):
    arguments = ("job", "train", "--config", ROOT / "jobs" / "delta.toml")
    assert_refused(run_stage(*arguments, cwd=tmp_path), "runs inside a SLURM job", "--cluster local")
    assert_refused(run_stage(*arguments, cwd=tmp_path, environment={"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}),
                   "the job has 4 tasks and this is one process", "srun python -m hpc_vsr job")
