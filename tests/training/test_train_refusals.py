"""Training refuses other settings, other data, other networks and wrong command lines."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
from files import rewrite
from stages import assert_refused, run_stage, torchrun
from trainings import train_tiny


def test_other_settings_on_a_run_folder_are_refused(dataset, trained):
    assert_refused(train_tiny(dataset, trained, "--train.lr", 1), "train.lr is 0.001 there, 1.0 now", "--out")
    assert_refused(train_tiny(dataset, trained, "--model.n_2d", 2), "model.n_2d is 1 there, 2 now")


def test_another_data_set_on_a_run_folder_is_refused(clip, trained, tmp_path):
    other = run_stage("preprocess", "--video", clip, "--shards", 5, "--degradation.sigma", 2, "--out", tmp_path / "d")
    assert other.returncode == 0, other.stderr
    before = (trained / "config.json").read_text()
    assert_refused(train_tiny(tmp_path / "d", trained), "another data set")
    assert (trained / "config.json").read_text() == before


def test_a_checkpoint_of_another_network_is_refused(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    config["model"]["skip"] = "none"
    rewrite(run / "config.json", config)
    assert_refused(train_tiny(dataset, run, "--model.skip", "none"), "another network")
    assert_refused(run_stage("evaluate", "--run", run), "another network")


@pytest.mark.parametrize("more, words", [
    (("--train.batch_size", 3), ["cannot be dealt equally to 2 ranks"]),
    (("--train.micro_batches", 4), ["the 2 samples of a rank cannot be cut into 4 equal parts"]),
    (("--train.patch_size", 25), ["25 LR pixels are more than the frames have"]),
])
def test_what_does_not_fit_ends_all_ranks(dataset, tmp_path, more, words):
    done = train_tiny(dataset, tmp_path / "r", *more, launcher=torchrun(2))
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (tmp_path / "r" / "config.json").exists()


@pytest.mark.parametrize("arguments, words", [
    (("--out", "r"), ["data"]),
    (("--data", "nowhere", "--out", "r"), ["nowhere/dataset.json", "not found", "hpc_vsr.preprocess"]),
    (("--data", "nowhere"), ["--out is missing"]),
    (("--data", "nowhere", "--out", "r", "--model.n_2d", "0"), ["n_2d", "at least 1"]),
    (("--data", "nowhere", "--out", "r", "--train.seed", str(10**23)), ["train.seed", "below 2^63"]),
    (("--config", "job.toml"), ["job.toml", "[train]", "'learning_rate'", "valid are"]),
])
def test_a_wrong_command_line_is_refused(tmp_path, arguments, words):
    (tmp_path / "job.toml").write_text("[train]\nlearning_rate = 1\n")
    assert_refused(run_stage("train", *arguments, cwd=tmp_path), *words)


def test_srun_without_ranks_is_refused(dataset, tmp_path):
    for variable in ("SLURM_STEP_NUM_TASKS", "PMI_SIZE"):
        done = train_tiny(dataset, tmp_path / "r", environment={variable: "2"})
        assert_refused(done, f"2 tasks were started ({variable}) but RANK is not set", "torchrun")


def test_a_run_named_like_a_baseline_is_refused(dataset, tmp_path):
    assert_refused(train_tiny(dataset, tmp_path / "wiener"), "cannot be named 'wiener'")


def test_a_gpu_that_is_not_there_is_refused(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--train.device", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert_refused(done, "no GPU is visible")


def test_a_job_with_gpus_does_not_train_on_the_cpu(dataset, tmp_path):
    """As with torch's CPU build, which is what an environment made on a login node easily has."""
    environment = {"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "4"}
    done = train_tiny(dataset, tmp_path / "r", "--train.device", "auto", environment=environment)
    assert_refused(done, "the job has 4 GPUs on this node, and ", "set train.device to cpu")
    assert train_tiny(dataset, tmp_path / "r", environment=environment).returncode == 0


def test_more_ranks_than_gpus_are_refused(dataset, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(f'data = "{dataset}"\n')
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NUM_NODES": "1",
             "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "1"}
    done = run_stage("job", "train", "--config", job, environment=slurm, cwd=tmp_path)
    assert_refused(done, "4 tasks and 1 GPU on each node", "sbatch --ntasks-per-node=1")


def test_a_changed_byte_in_a_shard_is_not_trained_on_or_measured(dataset, trained, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    for name, done in (("train-00001", lambda: train_tiny(copy, tmp_path / "r")),
                       ("test-00000", lambda: run_stage("evaluate", "--run", trained, "--data", copy))):
        path = next(copy.glob(f"{name}*.h5"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert_refused(done(), path.name, "has changed", "run the preprocessing again")
        path.write_bytes((dataset / path.name).read_bytes())


@pytest.mark.parametrize("patience", ["0", "-1", "ten", "1e9", ""])
def test_a_patience_that_is_no_time_is_refused(dataset, tmp_path, patience):
    environment = {"HPC_VSR_PATIENCE": patience, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                   "MASTER_PORT": "1"}
    assert_refused(train_tiny(dataset, tmp_path / "r", environment=environment), "HPC_VSR_PATIENCE", "1 to 86400")
    assert not (tmp_path / "r").exists()


def test_ranks_that_do_not_meet_end_with_a_line(dataset, tmp_path):
    environment = {"HPC_VSR_PATIENCE": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    assert_refused(train_tiny(dataset, tmp_path / "r", environment=environment), "MASTER_PORT")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment["MASTER_PORT"] = str(taken.getsockname()[1])
        done = train_tiny(dataset, tmp_path / "r", environment={**environment, "RANK": "0"})
        assert done.returncode == 1 and "rank 0 of 2: cannot join the others at 127.0.0.1:" in done.stderr
    done = train_tiny(dataset, tmp_path / "r", environment=environment)
    assert done.returncode == 1 and "rank 1 of 2: cannot join the others at 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variable, value", [("RANK", "one"), ("WORLD_SIZE", "2.0"), ("LOCAL_RANK", "-1"),
                                             ("RANK", "1")])
def test_ranks_that_are_no_numbers_are_refused(dataset, tmp_path, variable, value):
    assert_refused(train_tiny(dataset, tmp_path / "r", environment={variable: value}), variable)
