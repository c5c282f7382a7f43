"""launch: on this machine for real, and the text of what SLURM would be given."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys

import pytest
from repository import GOLDEN, ROOT
from stages import assert_refused, run_stage
from trainings import assert_equal_to_the_bit

from hpc_vsr.system.slurm import outside_of_job

pytestmark = pytest.mark.slow

SITES = sorted((ROOT / "slurm" / "sites").glob("*.toml"))
GENERIC = GOLDEN / "sbatch_generic.txt"


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_job_file_ends_in_a_report(job, tmp_path, cluster):
    done = run_stage("launch", "--config", job, "--cluster", cluster, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    run = tmp_path / "runs" / "tiny"
    content = json.loads((run / "report" / "report.json").read_text())
    assert [row["method"] for row in content["rows"]] == ["bicubic", "wiener", "tiny"] * 2
    assert "| Wiener" in done.stdout and "report: runs/tiny/report/index.html" in done.stdout
    assert f"{2 if cluster == 'local' else 1} rank" in done.stderr  # the log of rank 0 is shown meanwhile


def test_what_launch_trains_is_what_train_trains(job, trained, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "debug", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(tmp_path / "runs" / "tiny", trained)


def test_launched_again_it_says_that_training_is_finished(job, tmp_path):
    for _ in range(2):
        done = run_stage("launch", "--config", job, "--cluster", "local", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "finished before, 6 steps" in done.stderr


def test_a_mistake_in_the_job_is_one_line_with_status_2(job, tmp_path):
    refused = run_stage("launch", "--config", job, "--cluster", "local", "--train.batch_size", 3, cwd=tmp_path)
    assert_refused(refused, "train.batch_size: 3 cannot be dealt equally to 2 ranks")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "logs").exists()


def test_what_sbatch_refuses_is_one_line(job, tmp_path):
    """A stand-in for sbatch that answers as SLURM 22.05 does."""
    for name in ("sbatch", "srun", "squeue", "scontrol", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    done = run_stage("launch", "--config", job, "--cluster", "slurm", cwd=tmp_path,
                     environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert_refused(done, "sbatch refused the training", "invalid partition specified: gpu")


@pytest.mark.parametrize("arguments, words", [
    (("--cluster", "slurmm"), ["--cluster", "slurm"]),
    (("--cluster", "local", "--resources.nodes", "2"), ["2 nodes need --cluster slurm"]),
    (("--cluster", "local", "--resources.gpus_per_node", "1"), ["2 ranks and 1 GPU a node"]),
    (("--cluster", "local", "--data", "nowhere"), ["nowhere/dataset.json"]),
    ((), ["--cluster"]),
])
def test_a_wrong_command_line_is_refused(job, tmp_path, arguments, words):
    assert_refused(run_stage("launch", "--config", job, *arguments, cwd=tmp_path), *words)


def test_slurm_without_srun_is_refused(job, tmp_path):
    done = run_stage("launch", "--config", job, "--cluster", "slurm", cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert_refused(done, "squeue is not on this machine")


def test_a_local_dry_run_touches_nothing(job, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run_stage("launch", "--config", job, "--cluster", "local", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "2 ranks on this machine" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def changes(generic: str, text: str) -> str:
    """Return what differs: the job and the line after which it does, and the lines that are removed and added."""
    old, new = generic.splitlines(), text.splitlines()
    told = []
    for kind, start, stop, new_start, new_stop in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if kind != "equal":
            job = next(line for line in reversed(old[:start]) if line.startswith("### "))
            told += [f"{job}, after {old[start - 1]}", *(f"-{line}" for line in old[start:stop]),
                     *(f"+{line}" for line in new[new_start:new_stop])]
    return "\n".join([*told, ""])


@pytest.mark.mpi
@pytest.mark.parametrize("site", SITES, ids=lambda path: path.stem)
def test_the_scripts_for_a_site_are_these(tmp_path, site):
    """Whole for the generic site, and for the others what they change; HPC_VSR_WRITE_GOLDEN=1 writes them anew."""
    (tmp_path / "preprocess").symlink_to(ROOT / "preprocess")
    (tmp_path / "diamond.mp4").touch()
    done = run_stage("launch", "--config", ROOT / "jobs" / "delta.toml", "--cluster", "slurm", "--dry-run",
                     "--site", site, "--project", "abc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diamond.mp4", "preprocess"]
    text = done.stdout.replace(str(tmp_path), "/home/user/hpc-vsr").replace(sys.executable, "/home/user/bin/python")
    golden = GENERIC
    if site.stem != "generic":
        golden, text = GOLDEN / f"sbatch_{site.stem}.diff", changes(GENERIC.read_text(), text)
    if os.environ.get("HPC_VSR_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_training_without_gpu_goes_where_jobs_without_gpu_go(job, tmp_path):
    arguments = ("launch", "--config", job, "--cluster", "slurm", "--dry-run",
                 "--site", ROOT / "slurm" / "sites" / "ncsa_delta.toml", "--project", "abc")
    training = run_stage(*arguments, cwd=tmp_path).stdout.split("### report")[0]
    assert "#SBATCH --partition=cpu\n" in training and "--account=abc-delta-cpu" in training
    training = run_stage(*arguments, "--resources.gpus_per_node", 2, cwd=tmp_path).stdout.split("### report")[0]
    assert "#SBATCH --partition=gpuA100x4\n" in training and "#SBATCH --gpus-per-node=2\n" in training


def test_the_site_of_the_shell_is_taken_on_slurm_and_told(job, tmp_path):
    site = ROOT / "slurm" / "sites" / "ncsa_delta.toml"
    shell = {"HPC_VSR_SITE": str(site), "HPC_VSR_PROJECT": "abc"}

    def plan(*more, **options) -> tuple[list[str], str]:
        done = run_stage("launch", "--config", job, "--dry-run", "--cluster", *more, cwd=tmp_path, **options)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "MB" not in line], done.stderr

    given, said = plan("slurm", "--site", site, "--project", "abc")
    assert any("--account=abc-delta-cpu" in line for line in given) and "site: " not in said
    found, said = plan("slurm", environment=shell)
    assert found == given and f"site: {site} (HPC_VSR_SITE of this shell)" in said
    # a name on the command line counts more, and on this machine the site does not count
    other, _ = plan("slurm", "--project", "xyz", environment=shell)
    assert any("--account=xyz-delta-cpu" in line for line in other)
    assert plan("local", environment=shell)[0] == plan("local")[0]


def test_a_site_wants_the_name_of_the_allocation(tmp_path):
    site = ROOT / "slurm" / "sites" / "ncsa_delta.toml"
    arguments = ("launch", "--config", ROOT / "jobs" / "delta.toml", "--cluster", "slurm", "--dry-run", "--site", site)
    assert_refused(run_stage(*arguments, cwd=tmp_path), "add --project NAME")
    assert_refused(run_stage(*arguments, "--project", "a b", cwd=tmp_path), "expected a name of letters")


def test_a_site_as_shell_variables_survives_the_shell(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('setup = ["echo \'a b\'", "export X=$HOME"]\n[gpu]\npartition = "g"\nconstraint = "a100&hdr"\n')
    done = run_stage("site", "--site", site)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(["bash", "-c", f'{done.stdout}\nprintf "%s|" $HPC_VSR_GPU "$HPC_VSR_CPU" "$HPC_VSR_MPI" '
                            '"$HPC_VSR_SETUP"'], capture_output=True, text=True, check=True).stdout
    assert shown.split("|") == ["--partition=g", "--constraint=a100&hdr", "--gpus-per-node=1", "", "auto",
                                "echo 'a b'\nexport X=$HOME", ""]


def test_a_data_set_that_the_recipe_does_not_make_is_missed(job, tmp_path):
    (tmp_path / "clip.toml").write_text('video = "clip.mp4"\nout = "data/clip"\n')
    job.write_text('recipe = "clip.toml"\n' + job.read_text())
    done = run_stage("launch", "--config", job, "--data", "data/other", "--cluster", "local", cwd=tmp_path)
    assert_refused(done, "data/other/dataset.json: not found")


def test_what_is_wrong_is_said_before_the_data_set_is_made(job, clip, tmp_path):
    (tmp_path / "clip.toml").write_text('video = "nowhere.mp4"\nout = "data/clip"\n')
    job.write_text('recipe = "clip.toml"\n' + job.read_text())
    arguments = ("launch", "--config", job, "--data", "data/clip", "--cluster", "slurm")
    assert_refused(run_stage(*arguments, cwd=tmp_path), "clip.toml: video: nowhere.mp4: not found")
    shown = run_stage(*arguments, "--dry-run", cwd=tmp_path)  # the scripts can be read all the same
    assert shown.returncode == 0 and "### training" in shown.stdout and "warning: clip.toml: video" in shown.stderr
    (tmp_path / "clip.toml").write_text(f'video = "{clip}"\nout = "data/clip"\n')
    assert_refused(run_stage(*arguments, "--train.batch_size", 3, cwd=tmp_path), "3 cannot be dealt equally to 2 ranks")


SBATCH = """#!/bin/sh
# Takes the first %d jobs and refuses the next as SLURM 22.05 does.
echo x >>submissions
[ "$(wc -l <submissions)" -le %d ] || { echo 'sbatch: error: invalid partition specified: cpu' >&2; exit 1; }
echo "Submitted batch job $((100 + $(wc -l <submissions)))"
"""


def test_a_refused_report_takes_the_training_back(job, tmp_path):
    """Else the next launch would find the training in the queue, and there would never be a report."""
    for name, text in {"sbatch": SBATCH % (1, 1), "srun": "", "squeue": "", "scancel": "echo $@ >>cancelled\n"}.items():
        (tmp_path / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    done = run_stage("launch", "--config", job, "--cluster", "slurm", cwd=tmp_path,
                     environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert_refused(done, "sbatch refused the report", "the jobs submitted before it (101) were cancelled")
    assert (tmp_path / "cancelled").read_text() == "101\n"


def test_a_missing_data_set_is_made_first(job, clip, tmp_path):
    (tmp_path / "clip.toml").write_text(f'video = "{clip}"\nshards = 5\nout = "data/clip"\n')
    job.write_text('recipe = "clip.toml"\n' + job.read_text())
    done = run_stage("launch", "--config", job, "--data", "data/clip", "--cluster", "local", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "data/clip is made first, from clip.toml" in done.stdout
    done = run_stage("launch", "--config", job, "--data", "data/clip", "--cluster", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "clip" / "dataset.json").exists() and "| Wiener" in done.stdout


def test_what_is_submitted_does_not_inherit_the_job_it_is_submitted_from(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_CPU_BIND": "mask", "SBATCH_X": "x", "SLURM_CONF": "/c"}.items():
        monkeypatch.setenv(name, value)
    with outside_of_job():
        seen = dict(os.environ)
    assert "SLURM_CPU_BIND" not in seen and "SBATCH_X" not in seen and seen["SLURM_CONF"] == "/c"
    assert os.environ["SLURM_CPU_BIND"] == "mask"
    monkeypatch.delenv("SLURM_JOB_ID")
    with outside_of_job():  # on a login node SBATCH_ACCOUNT and its like are the user's wish
        assert os.environ["SBATCH_X"] == "x"


def test_the_scripts_say_what_a_cluster_needs_to_hear():
    text = GENERIC.read_text()
    training, report = text.split("### report")
    for line in ("#SBATCH --requeue", "#SBATCH --signal=USR2@120", "#SBATCH --gpus-per-node=1",
                 "#SBATCH --open-mode=append", "#SBATCH --partition=gpu",
                 "[ ! -f .venv/bin/activate ] || source .venv/bin/activate",
                 "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"):
        assert f"\n{line}\n" in training
    assert "--kill-on-bad-exit=1 --wait=60 --gpu-bind=none" in training
    assert "\n#SBATCH --dependency=afterany:TRAINING\n" in report and "\n#SBATCH --partition=cpu\n" in report
    assert "gpus" not in report


@pytest.mark.parametrize("text, words", [
    ("partition = 'gpu'", ["'partition'", "valid are: cpu, gpu, gpu_option, gpu_type, "]),
    ("setup = 'module load'", ["a list of shell lines"]),
    ("gpu = 'gpuA100x4'", ["'gpu' is a section"]),
    ("[gpu]\npartition = 3", ["gpu: partition", "a text in quotes"]),
    ("[gpu]\npartition = 'a b'", ["partition: expected a name without spaces"]),
    ("mpi = 'openmpi'", ["mpi", "'pmix'"]),
    ("[gpu]\npartitions = 'a'", ["gpu", "did you mean 'partition'"]),
])
def test_a_mistake_in_a_site_file_is_refused(job, tmp_path, text, words):
    (tmp_path / "site.toml").write_text(text)
    done = run_stage("launch", "--config", job, "--cluster", "slurm", "--site", "site.toml", "--dry-run", cwd=tmp_path)
    assert_refused(done, "site.toml", *words)
