"""Experiments: all settings of a job file, its sweep and its resources, and what of it is finished."""

from hpc_vsr.experiment.settings import Experiment, TrainSettings  # jobs in a queue from before name them here

__all__ = ["Experiment", "TrainSettings"]
