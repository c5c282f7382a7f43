"""What a real SLURM leaves of jobs that ended badly or never start, and what `status` says of them."""

from __future__ import annotations

import re

import pytest
from slurm_clone import Clone, job_number, write_sweep
from waiting import wait_until

pytestmark = [pytest.mark.slurm,
              pytest.mark.parametrize("cluster", ["no-accounting"], indirect=True, scope="module")]


def wait_for_words(clone: Clone, path, words: str) -> str:
    wait_until(lambda: words in clone.status(path), words, lambda: clone.status(path) + clone.logs())
    return clone.status(path)


def last_lines(clone: Clone, number: str) -> list[str]:
    log, = clone.folder.glob(f"logs/*/{number}_0_log.err")
    return log.read_text().splitlines()


def test_a_data_set_that_cannot_be_made_is_named_by_its_runs_and_the_report(clone, clip):
    """The array is cancelled with it, and the report, which follows in any case, fails."""
    (clone.folder / "broken.mp4").write_text("no video")
    (clone.folder / "preprocess" / "broken.toml").write_text('video = "broken.mp4"\nshards = 5\nout = "data/broken"\n')
    path = write_sweep(clone)
    path.write_text(path.read_text().replace(f'data = "{clone.dataset}"', 'data = "data/broken"\n'
                                             'recipe = "preprocess/broken.toml"') + "preprocess_ranks = 1\n")
    done = clone.launch("--config", path)
    data, report = job_number(done.stdout, "preprocessing"), job_number(done.stdout, "report")
    assert clone.wait(report) == "FAILED", clone.logs()
    table = wait_for_words(clone, path, "6 failed")
    said = f"job {data}: error: broken.mp4: "
    runs = [line for line in table.splitlines() if line.startswith("seed-")]
    assert len(runs) == 6 and all(f"  its data set was not made: {said}" in line for line in runs), table
    assert re.search(rf"data set data/broken: failed \(job {data}\): error: broken.mp4: .*log.err\)", table), table
    assert f"report: failed (job {report}): " in table and "Traceback" not in clone.logs()
    *before, last = last_lines(clone, data)
    assert last.startswith("the job ends with status 2: error: broken.mp4: "), last
    assert any(line.startswith("srun: error") for line in before)


def test_what_never_starts_is_told_and_the_chain_can_be_cancelled(clone):
    path = write_sweep(clone)
    path.write_text(path.read_text().replace("hours = 0.2\n", "hours = 13\n", 1))
    clone.cluster.ask("scontrol", "update", "partitionname=debug", "maxtime=00:05:00")
    try:
        done = clone.launch("--config", path)
        assert done.returncode == 0, done.stderr
        table = wait_for_words(clone, path, "6 never starts")
    finally:
        clone.cluster.ask("scontrol", "update", "partitionname=debug", "maxtime=12:00:00")
    assert "asks for more time than its partition gives (PartitionTimeLimit)" in table
    assert "report: never starts" in table, table  # it waits for runs that never start
    told = clone.run("python", "-m", "hpc_vsr.launch", "--config", path, "--cancel")
    assert told.returncode == 0 and "cancelled: report " in told.stdout and "6 runs (" in told.stdout, told.stderr
    wait_until(lambda: not clone.cluster.ask("squeue", "--noheader"), "an empty queue")
    assert "nothing of it is in SLURM's queue" in clone.run(
        "python", "-m", "hpc_vsr.launch", "--config", path, "--cancel").stdout
    assert "6 not started" in clone.status(path)


def test_a_cancelled_run_is_stopped_at_its_step_and_the_scripts_jobs_are_known(clone):
    path = clone.folder / "jobs" / "one.toml"
    path.write_text(write_sweep(clone).read_text().replace("[0, 1, 2, 3, 4, 5]", "[0, 1]").replace(
        "steps = 4", "steps = 3000"))
    done = clone.run("bash", "slurm/pipeline.sh", path.relative_to(clone.folder), MAX_RUNS="1",
                     HPC_VSR_CPU="--cpus-per-task=1 --mem=1500")
    assert done.returncode == 0, done.stderr
    table = wait_for_words(clone, path, "1 running, 1 waiting")
    assert "for other runs of its array (max_parallel) (JobArrayTaskLimit)" in table, table
    runs = clone.folder / "runs" / "one"
    wait_until(lambda: any((run / "metrics.jsonl").exists() for run in runs.glob("seed-0-*")), "a step", clone.logs)
    assert clone.run("python", "-m", "hpc_vsr.launch", "--config", path, "--cancel").returncode == 0
    table = wait_for_words(clone, path, "1 stopped, 1 not started")
    assert re.search(r"^seed-1-\w+ +not started .* job \d+_1 was cancelled; launch again$", table, re.MULTILINE), table
    assert re.search(r"^report: not started \(job \d+\): it was cancelled$", table, re.MULTILINE), table
    run, = runs.glob("seed-0-*")
    step = int(max(run.glob("checkpoints/step-*.pt")).stem.removeprefix("step-"))
    assert step > 0 and f"stopped at step {step} " in table, table
    assert re.search(rf"stopped: by SIGTERM: .*saved at step {step} of 3000", (run / "log.txt").read_text())


def test_a_point_that_cannot_be_trained_is_told_once_and_not_submitted(clone):
    path = write_sweep(clone)
    path.write_text(path.read_text().replace('"train.seed" = [0, 1, 2, 3, 4, 5]', '"train.first_stage_steps" = [0, 4]'))
    done = clone.launch("--config", path)
    assert done.returncode == 0 and "(1 of 2 runs)" in done.stdout, done.stderr + done.stdout
    warned = [line for line in done.stderr.splitlines() if "first_stage_steps-4" in line]
    assert len(warned) == 1 and "cannot be trained" in warned[0], done.stderr
    assert clone.run("python", "-m", "hpc_vsr.launch", "--config", path, "--cancel").returncode == 0
    table = clone.status(path)
    assert re.search(r"^first_stage_steps-4-\w+ +failed .*must be fewer than the 4 steps", table, re.MULTILINE), table
