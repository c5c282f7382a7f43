"""Experiments: all settings of a job file, its sweep and its resources, and which of its runs are finished."""

from hpc_vsr.experiment.settings import Experiment, TrainSettings  # jobs queued by earlier versions import them here

__all__ = ["Experiment", "TrainSettings"]
