"""The states of runs and jobs, with an imitated queue, imitated logs and folders; test_slurm_ends.py is real."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from repository import ROOT
from slurm_queue import queued
from trainings import write_run

from hpc_vsr.cluster import record
from hpc_vsr.cluster.find import find_report
from hpc_vsr.cluster.logs import SAY_LAST, End, find_logs, read_end
from hpc_vsr.cluster.overview import read_states
from hpc_vsr.cluster.record import RECORD, run_key
from hpc_vsr.cluster.state import STATES, JobState, decide_queued, decide_run
from hpc_vsr.experiment.finished import check_same_settings
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.progress import Progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.status import format_status
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import write_json
from hpc_vsr.system.slurm import Queued

DEAD = JobState("data set data/x", "failed", "11", "error: clip.mp4: not found (logs/x/11_0_log.err)")


# progress, number of a job that has left the queue, queued, end of its log, data job: state, words of the note
CASES = [
    (Progress("not started"), "", None, None, None, "not started", ""),
    (Progress("finished", 60, 60), "12_3", None, None, None, "finished", ""),
    (Progress("finished", 60, 60), "", queued("(Resources)"), None, None, "finished", ""),
    (Progress("finished", 60, 60, other=("train.lr is 0.1 there, 0.2 now",)), "12_3", None, None, None,
     "finished", "train.lr is 0.1 there, 0.2 now"),
    (Progress("not started"), "", queued("(Resources)"), None, None, "waiting", "for free nodes (Resources)"),
    (Progress("stopped", 40, 60), "", queued("(BeginTime)"), None, None, "waiting", "after a requeue"),
    (Progress("not started"), "", queued("(Dependency)", after="afterok:11(unfulfilled)"), None,
     dataclasses.replace(DEAD, state="running"), "waiting", "for its data set, job 11"),
    (Progress("not started"), "", queued("(QOSMaxJobsPerUserLimit)"), None, None, "waiting", "limit of your account"),
    (Progress("not started"), "", queued("(PartitionTimeLimit)"), None, None, "never starts", "more time than"),
    (Progress("not started"), "", queued("(PartitionNodeLimit)"), None, None, "never starts", "more nodes than"),
    (Progress("not started"), "", queued("(QOSMaxCpuPerJobLimit)"), None, None, "never starts", "beyond a limit"),
    (Progress("not started"), "", queued("(DependencyNeverSatisfied)"), None, DEAD, "never starts",
     "has failed (DependencyNeverSatisfied): job 11: error: clip.mp4: not found (logs/x/11_0_log.err)"),
    (Progress("not started"), "", queued("node1", "RUNNING"), None, None, "running", "node1"),
    (Progress("stopped", 40, 60), "", queued("node1", "COMPLETING"), None, None, "running", "SLURM is ending it"),
    (Progress("running", 41, 60), "", None, None, None, "running", ""),
    (Progress("diverged", 9, 60, divergence="the loss was not finite at step 9"), "12_3", None,
     End("failed", "failed: runs/x: the gradient ..."), None, "diverged", "the loss was not finite at step 9"),
    (Progress("stopped", 40, 60), "12_3", None, End("failed", "error: no room", Path("logs/x/12_3_0_log.err")), None,
     "failed", "error: no room (logs/x/12_3_0_log.err)"),
    (Progress("stopped", 40, 60), "12_3", None, End("silent", "", Path("logs/x/12_3_0_log.err")), None,
     "failed", "without a word, killed perhaps; see logs/x/12_3_0_log.err"),
    (Progress("not started"), "12_3", None, End("none"), None, "failed", "no log; see 'scontrol show job 12_3'"),
    (Progress("not started"), "12_3", None, End("none"), DEAD, "failed",
     "its data set was not made: job 11: error: clip.mp4: not found (logs/x/11_0_log.err)"),
    (Progress("stopped", 40, 60), "12_3", None, End("stopped", "stopped: saved at step 40"), None, "stopped",
     "goes on when it is launched again (stopped: saved at step 40)"),
    (Progress("stopped", 40, 60), "", None, End("stopped"), None, "stopped", "goes on when it is launched again"),
    (Progress("stopped", 40, 60, other=("train.lr is 0.1 there, 0.2 now",)), "", None, End("stopped"), None, "stopped",
     "launch it with its own settings, or choose another --out; train.lr is 0.1 there, 0.2 now"),
    (Progress("stopped", 40, 60, other=("train.lr is 0.1 there, 0.2 now",)), "12_3", None, End("none"), None, "failed",
     "no log; see 'scontrol show job 12_3'; train.lr is 0.1 there, 0.2 now"),
    (Progress("not started"), "12_3", None, End("cancelled", "job 12_3 was cancelled"), None, "not started",
     "job 12_3 was cancelled; launch again"),
    (Progress("stopped", 40, 60), "12_3", None, End("cancelled", "job 12_3 was cancelled"), None, "stopped",
     "goes on when it is launched again (job 12_3 was cancelled)"),
]


@pytest.mark.parametrize("progress, number, job, end, data, state, words", CASES)
def test_the_state_of_a_run_follows_from_its_files_its_job_and_its_log(progress, number, job, end, data, state, words):
    found, note, _ = decide_run(progress, number, job, lambda: end or End("stopped"), data)
    assert found == state and words in note, (found, note)


def test_every_state_of_the_table_in_the_docs_is_decided_and_no_other():
    """docs/slurm.md has the states and what they mean, in the order of the code; the cases above have each."""
    text = (ROOT / "docs" / "slurm.md").read_text().partition("| state | when |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w ]+)` \| (.*?) \|", text, re.MULTILINE)
    assert dict(rows) == STATES and [name for name, _ in rows] == list(STATES)
    assert {case[5] for case in CASES} == set(STATES)


LIFE = "runs/x: delta, 1 parameters\ntraining: 40/60 steps\n"
SRUN = "srun: error: node1: task 0: Exited with exit code 2\n"


@pytest.mark.parametrize("text, kind, line", [
    (f"{LIFE}error: data/x: shard 3 is damaged\n{SRUN}", "failed", "error: data/x: shard 3 is damaged"),
    # the ranks that SLURM ends because one has failed do not make it a cancellation
    (f"{LIFE}failed: no room\nslurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026 ***\n", "failed",
     "failed: no room"),
    (f"{LIFE}slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0.\n{SRUN}", "failed",
     "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0."),
    (f"{LIFE}slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n", "stopped",
     "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026 DUE TO TIME LIMIT ***"),
    (f"{LIFE}slurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026 ***\nstopped: runs/x: saved at step 40\n",
     "stopped", "stopped: runs/x: saved at step 40"),
    # an earlier life has failed to reach its end, and the present one was killed
    (f"{LIFE}stopped: saved\nruns/x: saved; job 12 goes back to the queue (requeue 1 of 20)\n{LIFE}", "silent", ""),
    (f"error: old\nslurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026 DUE TO NODE FAILURE ***\n{LIFE}"
     "KeyError: 'x'\n", "failed", "KeyError: 'x'"),
    (SRUN, "failed", SRUN.strip()),
    ("", "silent", ""),
    # submitit's traceback of an earlier version hides no line
    ("error: the line\nTraceback (most recent call last):\nRuntimeError: the stage ended with exit status 2; see its",
     "failed", "error: the line"),
])
def test_the_log_says_how_the_last_life_ended(tmp_path, text, kind, line):
    log = tmp_path / "12_0_log.err"
    log.write_text(text)
    end = read_end([log])
    assert (end.kind, end.line) == (kind, line) and end.log in (log, None)


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n'


@pytest.mark.parametrize("said, by_another, last", [
    (f"{LIFE}{TRACEBACK}RuntimeError: lr cannot be converted\n{SRUN}", "", "RuntimeError: lr cannot be converted"),
    (f"{TRACEBACK}AssertionError\n{SRUN}", "", "AssertionError"),
    (f"{TRACEBACK}torch.OutOfMemoryError: no memory\n{SRUN}", "", "torch.OutOfMemoryError: no memory"),
    (f"error: no room\n{TRACEBACK}RuntimeError: x\n{SRUN}", "", "error: no room"),
    (f"{TRACEBACK}RuntimeError: rank 1 has gone\n{SRUN}", "error: shard 3 is damaged\n", "error: shard 3 is damaged"),
    (SRUN, f"{TRACEBACK}KeyError: 'x'\n", "KeyError: 'x'"),
    ("a KeyError: x is no line of an exception\n", "", None),
])
def test_the_line_that_says_why_comes_last(tmp_path, said, by_another, last):
    """What the batch script of a job does at its end; of an earlier life it says nothing."""
    log = tmp_path / "12_0_log.err"
    log.write_text("error: of an earlier life\n")
    (tmp_path / "said").write_text(said)
    (tmp_path / "12_1_log.err").write_text(by_another)
    with log.open("a") as stream:
        subprocess.run(["bash", "-c", f"{SAY_LAST}\ncat {tmp_path}/said >&2\nexit 3\n"], stderr=stream, check=False)
    lines = log.read_text().splitlines()
    assert lines[-1] == (said.splitlines()[-1] if last is None else f"the job ends with status 3: {last}")


def test_of_several_ranks_the_one_that_failed_first_is_quoted(tmp_path):
    (tmp_path / "x").mkdir()
    for rank, text in ((0, "failed: connection closed by rank 3\n"), (3, "error: shard 3 is damaged\n"), (10, "")):
        (tmp_path / "x" / f"12_{rank}_log.err").write_text(text)
    (tmp_path / "x" / "12_0_0_log.err").write_text("error: of element 0 of array 12\n")  # another job
    (tmp_path / "ablation-12.log").write_text("")
    logs = find_logs(tmp_path / "x", "12")
    assert [log.name for log in logs] == ["12_0_log.err", "12_3_log.err", "12_10_log.err", "ablation-12.log"]
    assert [log.name for log in find_logs(tmp_path / "x", "12_0")] == ["12_0_0_log.err"]


JOB = JobFile(data=Path("data/x"), out=Path("runs/x"))


def read(folder: Path, queue, experiment: Experiment):
    page = folder / "report" / "index.html"
    return read_states(folder, experiment.data, Path("logs/x"), page, [experiment], queue)


def test_a_cancelled_run_that_saved_is_stopped_at_the_step_of_its_checkpoint(one):
    write_run(one.out, 40, [0.1] * 38)
    Path("logs/x/12_0_log.err").write_text("stopped: runs/x: saved at step 40 of 60; the same command continues\n")
    found, = read(one.out, {}, one).runs
    assert found.words == "stopped at step 40" and "goes on when it is launched again" in found.note


def test_a_run_launched_with_other_settings_says_which(one):
    write_run(one.out, 20, [0.1] * 20, steps=20)
    write_json(one.out / RECORD, {"runs": {run_key(one.out): "12"}})
    found, = read(one.out, {}, one).runs
    assert found.words == "finished with other settings" and "train.steps is 20 there, 60 now" in found.note


def test_the_way_to_go_on_is_no_command_that_would_be_refused(one):
    """A stopped run of other settings stands in the way; one that was launched beside it with others does not."""
    write_run(one.out, 20, [0.1] * 20, steps=40)
    write_json(one.out / RECORD, {})
    status = read(one.out, {}, one)
    assert status.runs[0].words == "stopped at step 20 with other settings"
    assert format_status(status, "launch").splitlines()[-1] == (
        "to go on: launch x with its own settings, or choose another --out")
    with pytest.raises(InputError, match="holds a run with other settings: train.steps is 40 there, 60 now"):
        check_same_settings(RunFolder(one.out), one)
    beside = dataclasses.replace(one, out=one.out / "b")
    write_run(beside.out, 20, [0.1] * 20)
    write_run(one.out / "a", 20, [0.1] * 20, steps=40)
    write_json(one.out / RECORD, {"runs": {run_key(one.out / "a"): "20_0"}})
    status = read(one.out, {}, beside)
    assert [state.words for state in status.runs] == ["stopped at step 20", "failed with other settings"]
    assert format_status(status, "launch").splitlines()[-1] == "to go on: launch"


def test_a_killed_report_is_told_and_a_finished_one_is_named(one):
    Path("logs/x/13_0_log.err").write_text("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=13.0.\n")
    state, = read(one.out, {}, one).jobs
    assert str(state) == ("report: failed (job 13): slurmstepd: error: Detected 1 oom-kill event(s) in StepId=13.0. "
                          "(logs/x/13_0_log.err)")
    Path("logs/x/13_0_log.err").write_text("")
    state, = read(one.out, {}, one).jobs
    assert state.state == "failed" and "ended without a word" in state.note
    page = one.out / "report" / "index.html"
    page.parent.mkdir()
    page.touch()
    state, = read(one.out, {}, one).jobs
    assert str(state) == "report: finished: runs/x/report/index.html"
    os.utime(page, (1, 1))  # that of an earlier submission
    state, = read(one.out, {}, one).jobs
    assert state.state == "failed"


def test_a_page_that_is_older_than_its_runs_says_so(tmp_path):
    page = tmp_path / "index.html"
    page.touch()
    os.utime(page, (100, 100))
    assert "older than its runs" in find_report(page, None, 0.0, None, tmp_path, changed=200.0).note
    assert find_report(page, None, 0.0, None, tmp_path, changed=50.0).note == str(page)


def test_a_watch_goes_on_while_anything_may_start(one):
    waits = {"12": queued("(JobArrayTaskLimit)")}
    assert read(one.out, waits, one).is_going
    report = {"13": Queued("13", "PENDING", "(Dependency)", "report-x", "afterany:12(unfulfilled)")}
    assert read(one.out, report, one).is_going
    never = {"13": Queued("13", "PENDING", "(PartitionTimeLimit)", "report-x", "")}
    status = read(one.out, never, one)
    assert not status.is_going and any("never starts (job 13)" in line for line in status.needs_attention)
    assert not read(one.out, {}, one).is_going
    status = read(one.out, {"12": queued("(PartitionNodeLimit)"), **report}, one)
    assert not status.is_going and str(status.jobs[0]) == (
        "report: never starts (job 13): it waits for runs that never start")


def test_without_slurm_a_run_that_was_submitted_says_so(one):
    found, = read(one.out, None, one).runs
    assert found.note == "it was submitted as job 12, and SLURM cannot be asked for it here"


def test_when_the_data_job_dies_the_run_names_it_and_its_log(one):
    write_json(one.data / RECORD, {"preprocessing": "11"})
    Path("logs/x/11_0_log.err").write_text("error: clip.mp4: not found\n" + SRUN)
    status = read(one.out, {}, one)
    said = "job 11: error: clip.mp4: not found (logs/x/11_0_log.err)"
    assert said in status.runs[0].note and status.runs[0].state == "failed"
    assert str(status.jobs[0]) == "data set data/x: failed (job 11): error: clip.mp4: not found (logs/x/11_0_log.err)"


def test_what_the_scripts_submitted_is_known_as_what_launch_submitted(one, monkeypatch):
    job = dataclasses.replace(JOB, data=one.data, out=Path("runs/s"))
    runs = [dataclasses.replace(one, out=Path(f"runs/s/{name}")) for name in "ab"]
    record.record_scripts(job, runs, "preprocessing=11,training=12,report=13")
    assert json.loads(Path("runs/s", RECORD).read_text()) == {
        "runs": {run_key(Path("runs/s/a")): "12_0", run_key(Path("runs/s/b")): "12_1"}, "report": "13",
        "data_folder": "data/x"}
    assert json.loads((one.data / RECORD).read_text()) == {"preprocessing": "11"}
    Path("logs/train-s-12_1.log").write_text("error: said by a script\n")
    queue = {"12_0": queued("(JobArrayTaskLimit)")}
    first, second = read_states(job.out, one.data, Path("logs/s"), Path("none"), runs, queue).runs
    assert first.state == "waiting"
    assert second.state == "failed" and second.note == "error: said by a script (logs/train-s-12_1.log)"


def test_a_reason_that_passes_and_one_that_does_not():
    assert decide_queued(queued("(ReqNodeNotAvail, UnavailableNodes:node1)")) == (
        "waiting", "for nodes that are reserved or down (ReqNodeNotAvail)")
    assert decide_queued(queued("(JobHeldUser)"))[1] == "until you release it: scontrol release 12_3 (JobHeldUser)"
    assert decide_queued(queued("(launch failed requeued held)"))[0] == "never starts"
