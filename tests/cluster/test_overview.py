"""status without a job file: the runs of a folder, with an imitated queue."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from slurm_queue import queued
from trainings import write_run

from hpc_vsr.cluster import overview
from hpc_vsr.cluster.overview import read_overview
from hpc_vsr.cluster.record import RECORD, record_data, record_runs, run_key
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.status import format_overview
from hpc_vsr.system.files import write_json
from hpc_vsr.system.slurm import Queued

JOB = JobFile(data=Path("data/x"), out=Path("runs/x"))


def test_without_a_job_file_every_run_has_a_line_with_its_log(one, monkeypatch):
    write_run(Path("runs/alone"), 60, [0.1] * 60)
    Path("runs/alone/log.txt").touch()
    write_run(Path("runs/sweep/a"), 20, [0.1] * 20)
    write_json(Path("runs/sweep") / RECORD, {"runs": {run_key(Path("runs/sweep/a")): "20_0",
                                                      run_key(Path("runs/sweep/b")): "20_1"}})
    Path("logs/sweep").mkdir()
    Path("logs/sweep/20_0_0_log.err").write_text("error: no room\n")
    queue = {"20_1": queued("(Resources)"), "12": queued("node1", "RUNNING")}
    monkeypatch.setattr(overview, "ask_queue", lambda: queue)
    found = {str(state.run.path): (state.words, str(state.log)) for state in read_overview(Path("runs")).runs}
    assert found == {"runs/alone": ("finished", "None"), "runs/x": ("running", "None"),
                     "runs/sweep/a": ("failed", "logs/sweep/20_0_0_log.err"), "runs/sweep/b": ("waiting", "None")}


def test_a_run_without_a_log_says_that_its_data_job_died_and_so_does_the_report(one, monkeypatch):
    record_data(JOB, "11")
    record_runs(JOB, {run_key(one.out): "12"}, "13")
    Path("logs/x/11_0_log.err").write_text("error: clip.mp4: not found\n")
    Path("logs/x/13_0_log.err").write_text("error: runs/x: lists what is missing\n")
    monkeypatch.setattr(overview, "ask_queue", dict)
    status = read_overview(Path("runs"))
    assert [(state.state, state.note) for state in status.runs] == [("failed", (
        "its data set was not made: job 11: error: clip.mp4: not found (logs/x/11_0_log.err)"))]
    assert format_overview(status).splitlines()[2].endswith(f"  12   {status.runs[0].note}")
    assert format_overview(status).splitlines()[-3:] == [
        "1 failed", "runs/x: data set data/x: failed (job 11): error: clip.mp4: not found (logs/x/11_0_log.err)",
        "runs/x: report: failed (job 13): error: runs/x: lists what is missing (logs/x/13_0_log.err)"]
    record_data(JOB, "14")
    monkeypatch.setattr(overview, "ask_queue", lambda: {"14": Queued("14", "RUNNING", "node1", "preprocess-x")})
    assert read_overview(Path("runs")).is_going


def test_a_run_behind_a_link_is_found_and_a_link_in_a_circle_ends(one, tmp_path, monkeypatch):
    write_run(tmp_path / "scratch" / "far", 60, [0.1] * 60)
    Path("runs/deep").mkdir()
    Path("runs/deep/linked").symlink_to(tmp_path / "scratch" / "far")
    Path("runs/deep/back").symlink_to(Path("runs").resolve())
    monkeypatch.setattr(overview, "ask_queue", dict)
    assert [str(state.run.path) for state in read_overview(Path("runs")).runs] == ["runs/deep/linked", "runs/x"]


def test_runs_are_found_at_any_depth_each_once(one, monkeypatch):
    for name in ("deep/er/r1", "deep/er/r2", "deep/r3"):
        write_run(Path("runs", name), 60, [0.1] * 60)
    Path("runs/deep/er/r1/report/x").mkdir(parents=True)
    record_runs(dataclasses.replace(JOB, out=Path("runs/deep/er")), {
        run_key(Path("runs/deep/er") / name): f"20_{number}" for number, name in enumerate(("r1", "r2", "r4"))})
    # launched again, alone
    record_runs(dataclasses.replace(JOB, out=Path("runs/deep/er/r2")), {run_key(Path("runs/deep/er/r2")): "30"})
    monkeypatch.setattr(overview, "ask_queue", lambda: {"20_2": queued("(Resources)"), "30": queued("(Resources)")})
    states = {str(state.run.path): state for state in read_overview(Path("runs")).runs}
    assert list(states) == ["runs/deep/er/r1", "runs/deep/er/r2", "runs/deep/er/r4", "runs/deep/r3", "runs/x"]
    assert [state.state for state in states.values()] == ["finished", "finished", "waiting", "finished", "failed"]
