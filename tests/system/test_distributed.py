"""Ranks and their threads."""

from __future__ import annotations

import importlib
import os

import pytest
import torch

import hpc_vsr
from hpc_vsr.system.ranks import Ranks

VARIABLES = ("SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS", "SLURM_CPUS_ON_NODE", "OMP_NUM_THREADS",
             "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize("environment, threads", [
    ({}, 4), ({"LOCAL_WORLD_SIZE": "8"}, 1), ({"LOCAL_WORLD_SIZE": "4"}, 2),
    ({"SLURM_CPUS_PER_TASK": "16", "SLURM_STEP_NUM_TASKS": "2", "OMP_NUM_THREADS": "1"}, 16),
    # torchrun in a task of four cores, where tasks are not bound to their cores, and in a script without srun
    ({"SLURM_CPUS_PER_TASK": "4", "SLURM_STEP_NUM_TASKS": "1"}, 2),
    ({"SLURM_CPUS_PER_TASK": "4", "SLURM_STEP_NUM_TASKS": "1", "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "7"}, 2),
    ({"SLURM_CPUS_PER_TASK": "1", "SLURM_STEP_NUM_TASKS": "1", "LOCAL_WORLD_SIZE": "2"}, 1),
    ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "6", "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "7"}, 3),
    ({"SLURM_CPUS_PER_TASK": "4", "SLURM_STEP_NUM_TASKS": "1", "OMP_NUM_THREADS": "3", "TORCHELASTIC_RUN_ID": "7"}, 3),
    ({"SLURM_CPUS_PER_TASK": "8"}, 4), ({"SLURM_CPUS_PER_TASK": "8", "SLURM_STEP_NUM_TASKS": "1"}, 4),
    ({"OMP_NUM_THREADS": "3"}, 3),
    ({"OMP_NUM_THREADS": "1"}, 1), ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}, 4),
    ({"OMP_NUM_THREADS": "2", "TORCHELASTIC_RUN_ID": "none"}, 2), ({"OMP_NUM_THREADS": "4,2"}, 4),
])
def test_a_rank_has_the_threads_that_it_was_given_and_else_its_share(monkeypatch, environment, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Ranks(0, 2, torch.device("cpu")).num_threads == threads


@pytest.mark.parametrize("given, holds", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_user_wants_otherwise(monkeypatch, given, holds):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    importlib.reload(hpc_vsr)
    assert os.environ["OMP_WAIT_POLICY"] == holds
