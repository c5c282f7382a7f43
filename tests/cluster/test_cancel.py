"""launch --cancel: what it takes out of an imitated queue; test_slurm_ends.py is real."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hpc_vsr.cluster import record
from hpc_vsr.cluster.record import RECORD
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.system.files import write_json
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


