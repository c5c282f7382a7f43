"""Sites that differ: a SLURM that enforces limits, passes no variables on to a job, and knows of no GPUs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster
from slurm_clone import SHORT, Clone, job_number, runs_of, write_sweep
from trainings import as_toml

pytestmark = pytest.mark.slurm
ONE = (*SHORT, "--train.steps", 4, "--train.warmup_steps", 1)


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster.running_cluster("strict") as started:
        yield started


@pytest.fixture
def clone(cluster, dataset, tmp_path) -> Clone:
    """A clone whose environment is made by the site's setup, and whose shell passes nothing on to a job."""
    own = shutil.copytree(dataset, tmp_path / "data-of-this-test")  # the jobs that make it are recorded there
    clone = Clone(tmp_path, cluster, own)
    clone.environment["SBATCH_EXPORT"] = "NONE"
    (clone.folder / "site.toml").write_text(f'''
setup = ["export PATH={Path(sys.executable).parent}:$PATH", "export OMP_NUM_THREADS=1"]
gpu_option = "none"
[resources]
preprocess_ranks = 2
report_cpus = 1
report_memory_gb = 1.5
[gpu]
partition = "debug"
[cpu]
partition = "debug"
options = ["--comment=of-the-site"]
''')
    return clone


def in_site(clone: Clone, command: str) -> subprocess.CompletedProcess:
    return clone.run("bash", "-c", f'eval "$({sys.executable} -m hpc_vsr.site --site site.toml)" && {command}')


def test_a_script_runs_though_nothing_is_passed_on_to_the_job(clone):
    """Its head asks for a GPU, which the variables of the site take back."""
    settings = " ".join(map(str, ("--data", clone.dataset, "--out", "runs/one", *ONE)))
    done = in_site(clone, f"bash slurm/submit.sh $HPC_VSR_GPU --cpus-per-task=1 slurm/train_delta.sbatch {settings}")
    assert done.returncode == 0 and re.fullmatch(r"\d+\n", done.stdout), done.stderr
    assert clone.wait(done.stdout.strip()) == "COMPLETED", clone.logs()
    assert json.loads((clone.folder / "runs" / "one" / "report" / "report.json").read_text())["runs"]


def test_launch_and_its_jobs_do_so_too(clone):
    path = clone.folder / "jobs" / "one.toml"
    path.write_text(f'data = "{clone.dataset}"\n{as_toml(ONE)}[resources]\ngpus_per_node = 1\nhours = 0.2\n')
    done = clone.launch("--config", path, "--site", "site.toml")
    assert done.returncode == 0, done.stderr
    report = job_number(done.stdout, "report")
    shown = clone.cluster.ask("scontrol", "--oneliner", "show", "job", report)
    assert "Comment=of-the-site" in shown and "MinMemoryNode=1.50G" in shown and "NumCPUs=1" in shown
    assert clone.wait(report) == "COMPLETED", clone.logs()
    assert json.loads((clone.folder / "runs" / "one" / "report" / "report.json").read_text())["runs"]


def test_the_pipeline_asks_for_what_the_job_file_and_the_site_say(clone):
    path = write_sweep(clone).relative_to(clone.folder)
    done = in_site(clone, f"RECIPE=preprocess/diamond_sample.toml bash slurm/pipeline.sh {path} --train.steps 2")
    assert done.returncode == 0, done.stderr
    jobs = dict(re.findall(r"^(\w[\w ]*\w) +job (\d+)", done.stdout, re.MULTILINE))
    made, report = (clone.cluster.ask("scontrol", "--oneliner", "show", "job", jobs[name])
                    for name in ("data set", "report"))
    assert "NumTasks=2" in made and "Comment=of-the-site" in made
    assert "NumCPUs=1" in report and "MinMemoryNode=1.50G" in report and "TimeLimit=00:12:00" in report
    assert clone.wait(jobs["report"]) == "COMPLETED", clone.logs()
    assert len(runs_of(clone)) == 6


def test_what_the_partition_never_starts_is_refused_with_its_key(clone):
    path = clone.folder / "jobs" / "one.toml"
    path.write_text(f'data = "{clone.dataset}"\n{as_toml(ONE)}[resources]\nhours = 0.2\n')
    site = clone.folder / "site.toml"
    site.write_text(site.read_text().replace('partition = "debug"', 'partition = "short"'))
    asks = ("--config", path, "--site", "site.toml")
    done = clone.launch(*asks, "--resources.hours", 2, "--resources.nodes", 2, "--resources.cpus_per_rank", 5)
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and said == [
        "error: --cluster slurm: would never start: the training: hours (2): partition short allows 1 h; the training: "
        "nodes (2): partition short allows 1 a job; the training: cpus_per_rank (5): 5 cores on a node, and no node of "
        "partition short has more than 4; change [resources] or the site's file"]
    assert not (clone.folder / "runs").exists() and not clone.cluster.ask("squeue", "--noheader")
    # without a partition in the site, the default one is not known to decide: a warning, and sbatch has the last word
    done = clone.launch("--config", path, "--resources.report_cpus", 5)
    assert "warning: the report may never start: report_cpus (5): 5 cores on a node" in done.stderr
    assert done.returncode == 2 and "sbatch refused the report" in done.stderr and "report_cpus (5)" in done.stderr


@pytest.mark.parametrize("numbers, shares", [
    ("1,3", ["1/2", "2/2"]), ("0-1", ["1/2", "2/2"]), ("2-8:3", ["1/3", "2/3", "3/3"]), ("7", ["1/1"]),
    ("1,2,4", ["1/4", "2/4", "4/4"]), ("1-9:4,10", ["1/10", "5/10", "9/10", "10/10"]),
])
def test_the_elements_of_an_array_of_any_numbers_have_different_shares(clone, numbers, shares):
    """A program that prints its words stands for the upscaling; each log is found by the element's own number."""
    (clone.folder / "bin").mkdir()
    python = clone.folder / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *hpc_vsr.upscale*) echo "did $*";; *) echo pmi2;; esac\n')
    python.chmod(0o755)
    site = clone.folder / "site.toml"
    site.write_text(f'setup = ["export PATH={clone.folder}/bin:$PATH"]\nmpi = "pmi2"\n')
    done = in_site(clone, f"bash slurm/submit.sh --array={numbers} --ntasks=1 --mem=100 slurm/upscale.sbatch --run r")
    job = done.stdout.strip()
    assert clone.wait(job) == "COMPLETED", clone.logs()
    logs = (clone.folder / "logs").glob(f"upscale-{job}_*.log")
    said = {int(log.stem.rpartition("_")[2]): re.search(r"--run r --part (\S+)", log.read_text())[1] for log in logs}
    assert [said[number] for number in sorted(said)] == shares


SBATCH = """#!/bin/sh
printf 'Welcome to 2 clusters\\n*** 3 nodes are down ***\\n%s\\n\\n' "$SAYS"
"""


@pytest.mark.parametrize("says, number", [
    ("4711", "4711"), ("4711;delta", "4711"), ("4711;delta  ", "4711"), ("none", None)])
def test_the_number_of_a_job_is_found_among_what_sbatch_prints(clone, says, number):
    (clone.folder / "bin").mkdir()
    (clone.folder / "bin" / "sbatch").write_text(SBATCH)
    (clone.folder / "bin" / "sbatch").chmod(0o755)
    done = clone.run("bash", "slurm/submit.sh", "x", SAYS=says, PATH=f"{clone.folder}/bin:/usr/bin:/bin")
    if number is None:
        assert done.returncode == 2 and not done.stdout and "error: sbatch said no number of a job" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, f"{number}\n") and "3 nodes are down" in done.stderr
