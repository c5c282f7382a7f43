from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from slurm_clone import Clone
from trainings import TINY, as_toml

from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.system.files import write_json


@pytest.fixture
def job(dataset, tmp_path) -> Path:
    """A job file of six steps on two ranks."""
    path = tmp_path / "tiny.toml"
    path.write_text(f'data = "{dataset}"\n{as_toml(TINY)}[resources]\nranks_per_node = 2\n')
    return path


@pytest.fixture(scope="module", params=["accounting", "no-accounting"])
def cluster(request) -> Iterator[slurm_cluster.Cluster]:
    with slurm_cluster.running_cluster(request.param) as started:
        yield started


@pytest.fixture
def clone(cluster, dataset, tmp_path) -> Clone:
    """A folder as a user has it after cloning."""
    return Clone(tmp_path, cluster, dataset)


@pytest.fixture
def one(tmp_path, monkeypatch) -> Experiment:
    """A run of a job file that was submitted as job 12, with its report, 13."""
    from hpc_vsr.cluster.record import RECORD, run_key  # late: it wants yaml, which a machine for GPU tests lacks

    monkeypatch.chdir(tmp_path)
    experiment = Experiment(data=Path("data/x"), out=Path("runs/x"), train=TrainSettings(steps=60))
    for folder in ("runs/x", "logs/x", "data/x"):
        Path(folder).mkdir(parents=True)
    write_json(experiment.out / RECORD, {"runs": {run_key(experiment.out): "12"}, "report": "13"})
    return experiment
