"""status without a job file: the runs of a folder, with an imitated queue."""

from __future__ import annotations

from pathlib import Path

from slurm_queue import queued
from trainings import write_run

from hpc_vsr.cluster import overview
from hpc_vsr.cluster.overview import read_overview
from hpc_vsr.cluster.record import RECORD, run_key
from hpc_vsr.system.files import write_json


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
    found = {str(state.run.path): (state.words, str(state.log)) for state in read_overview(Path("runs"))}
    assert found == {"runs/alone": ("finished", "None"), "runs/x": ("running", "None"),
                     "runs/sweep/a": ("failed", "logs/sweep/20_0_0_log.err"), "runs/sweep/b": ("waiting", "None")}


