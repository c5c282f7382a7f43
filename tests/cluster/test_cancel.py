"""launch --cancel: what it takes out of an imitated queue; test_slurm_ends.py is real."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from trainings import write_run

from hpc_vsr.cluster import record
from hpc_vsr.cluster.overview import Status, read_states
from hpc_vsr.cluster.record import RECORD, run_key
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.status import format_status
from hpc_vsr.system.files import write_json
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.slurm import Queued

JOB = JobFile(data=Path("data/x"), out=Path("runs/x"))


def test_all_of_the_chain_is_cancelled_and_nothing_else(one, monkeypatch):
    """The data set stays if the job of another job file waits for it."""
    job = dataclasses.replace(JOB, data=one.data, out=one.out)
    write_json(one.data / RECORD, {"preprocessing": "11"})
    mine = {"11": Queued("11", "RUNNING", "node1", "preprocess-x"),
            "12": Queued("12", "PENDING", "(Dependency)", "train-x", "afterok:11(unfulfilled)"),
            "13": Queued("13", "PENDING", "(Dependency)", "report-x", "afterany:12")}
    others = {"40": Queued("40", "PENDING", "(Dependency)", "train-other", "afterok:11(unfulfilled)"),
              "41": Queued("41", "RUNNING", "node2", "train-other")}
    for queue, wanted in ((mine, ["13", "12", "11"]), ({**mine, **others}, ["13", "12"])):
        cancelled = []
        monkeypatch.setattr(record.slurm, "read_queue", lambda queue=queue: queue)
        monkeypatch.setattr(record.slurm, "cancel", cancelled.extend)
        said = record.cancel_chain(job, [one])
        assert cancelled == wanted
        assert "report 13, 1 run (12)" in said and ("data set 11" in said)
    assert "not the data set 11, for which 40 waits" in said
    monkeypatch.setattr(record.slurm, "read_queue", dict)
    assert record.cancel_chain(job, [one]) == "runs/x: nothing of it is in SLURM's queue"


def test_what_was_cancelled_before_it_began_is_not_started_and_no_failure(one, monkeypatch):
    """It leaves no log. A run that has saved goes on from there, and one that has failed has failed."""
    job = dataclasses.replace(JOB, data=one.data, out=Path("runs/s"))
    runs = [dataclasses.replace(one, out=Path(f"runs/s/{name}")) for name in "abcd"]
    record.record_scripts(job, runs, "preprocessing=11,training=12,report=13")
    queue = {number: Queued(number, "PENDING", "(Priority)", f"{name}-s") for number, name in (
        ("11", "preprocess"), ("13", "report"), *((f"12_{element}", "train") for element in range(4)))}
    del queue["12_3"]  # it has left the queue before
    monkeypatch.setattr(record.slurm, "read_queue", lambda: queue)
    monkeypatch.setattr(record.slurm, "cancel", lambda numbers: None)
    record.cancel_chain(job, runs)
    write_run(runs[1].out, 40, [0.1] * 40)
    Path("logs/s").mkdir()
    Path("logs/s/12_2_0_log.err").write_text("failed: no room\n")
    for left in ({}, None):  # with a SLURM to ask, and without
        status = read_states(job.out, one.data, Path("logs/s"), Path("none"), runs, left)
        assert [state.words for state in status.runs[:2]] == ["not started", "stopped at step 40"]
        assert status.runs[0].note == "job 12_0 was cancelled; launch again"
        assert [str(state) for state in status.jobs] == ["data set data/x: not started (job 11): it was cancelled",
                                                         "report: not started (job 13): it was cancelled"]
        assert format_status(Status(status.runs[:1], status.jobs), "launch").splitlines()[-1] == "to go on: launch"
    assert [state.words for state in read_states(job.out, one.data, Path("logs/s"), Path("none"), runs, {}).runs[2:]] \
        == ["failed", "failed"]
    record.record_runs(job, {run_key(runs[0].out): "20_0", run_key(runs[1].out): "12_1"}, "21")
    assert json.loads(Path("runs/s", RECORD).read_text()) == {
        "runs": {run_key(runs[0].out): "20_0", run_key(runs[1].out): "12_1"}, "data_folder": "data/x", "report": "21",
        "cancelled": ["12_1"]}


def test_a_run_that_was_submitted_with_sbatch_alone_is_found_by_the_holder_of_its_folder(one, monkeypatch):
    """slurm/ablation.sbatch names its job ablation, and no record has it."""
    runs = [dataclasses.replace(one, out=Path(f"runs/s/{name}")) for name in "ab"]
    job = dataclasses.replace(JOB, out=Path("runs/s"))
    queue = {"12_0": Queued("12_0", "RUNNING", "node1", "ablation"),
             "12_1": Queued("12_1", "PENDING", "(None)", "ablation")}
    cancelled = []
    monkeypatch.setattr(record.slurm, "read_queue", lambda: queue)
    monkeypatch.setattr(record.slurm, "cancel", cancelled.extend)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    runs[0].out.mkdir(parents=True)
    with only_writer(runs[0].out):
        assert record.read_queued_jobs(job, runs).runs == {run_key(runs[0].out): "12_0"}
        said = record.cancel_chain(job, runs)
        assert read_states(job.out, one.data, Path("logs/s"), Path("none"), runs, queue).runs[0].job == "12_0"
    assert cancelled == ["12_0"]
    assert "1 run (12_0), not 12_1, which belongs to the same array and may train other runs: scancel it" in said
    assert record.cancel_chain(job, runs) == "runs/s: nothing of it is in SLURM's queue"
