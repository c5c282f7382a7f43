"""One training, from the run folder to the last step: it steps, validates, and writes history and checkpoints."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque

import torch

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import Manifest, check_shards
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import choose_memory
from hpc_vsr.experiment.finished import open_run_folder
from hpc_vsr.experiment.progress import read_progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.models.blocks import count_parameters
from hpc_vsr.models.filters import FilterBank
from hpc_vsr.models.precision import check_precision
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.history import append_record, drop_records_after, read_history
from hpc_vsr.runs.start import read_start
from hpc_vsr.runs.state import load_checkpoint, load_weights, save_checkpoint
from hpc_vsr.runs.trained import DataTerms, network_state
from hpc_vsr.system.config import as_dict, from_dict
from hpc_vsr.system.errors import Failed, InputError, Stopped
from hpc_vsr.system.files import append_text
from hpc_vsr.system.lock import Lock
from hpc_vsr.system.progress import Progress, Rate, format_seconds
from hpc_vsr.system.ranks import Ranks
from hpc_vsr.system.signals import StopFlag
from hpc_vsr.training.optimisation import Optimisation
from hpc_vsr.training.precision import settle_precision
from hpc_vsr.training.start import compare_noise, load_start
from hpc_vsr.training.tensorboard import EventFile, check_installed
from hpc_vsr.training.terms import find_terms, split_kind
from hpc_vsr.training.validation import prepare_reach, validate
from hpc_vsr.training.vectors import warn_of_vectors

STEPS_LATE = {"cpu": 0, "cuda": 1}  # by so many a step's figures are read, so that the device goes on meanwhile


class Trainer:
    """A run that is being trained, on this rank."""

    def __init__(self, experiment: Experiment, manifest: Manifest, ranks: Ranks, lock: Lock | None):
        self.lock = lock  # None on all ranks but the main one
        self.run_folder = RunFolder(experiment.out)
        # Precision and run folder: check them before any frame is read
        ranks.on_main(lambda: check_installed(experiment.train.tensorboard))
        experiment, choice, lines = ranks.on_main(lambda: settle_precision(experiment, manifest, ranks.device))
        ranks.on_all(lambda: check_precision(choice.precision, ranks.device, "train.precision"))
        self.experiment, self.settings, self.manifest, self.ranks = experiment, experiment.train, manifest, ranks
        # Start of a fine-tuned run: the main rank reads it, so that all ranks have the same weights
        start = ranks.on_main(lambda: load_start(experiment, manifest))
        self.config = ranks.on_main(lambda: open_run_folder(self.run_folder, experiment, manifest, choice,
                                                            start.start if start else None))
        self.first_lines = [*lines, *(start.lines if start else [])]  # to print before the first step
        torch.backends.cudnn.deterministic = self.settings.deterministic

        if self.settings.verify_shards:
            ranks.on_all(lambda: check_shards(manifest, ("train", "val"), ranks.rank, ranks.world_size))
        # Data: training frames are kept in memory if they fit; validation frames are always read from the shards
        sigmas = self.settings.sigmas
        self.memory = choose_memory(manifest, self.settings.resident, ranks.device, ranks.per_node,
                                    experiment.model.align, len(sigmas))
        self.frames = Clips(manifest, "train", self.memory, self.settings.num_frames, split_kind(experiment))
        self.validation = Clips(manifest, "val")

        # Network: every rank builds the same one, from the seed or from the newest checkpoint
        newest = ranks.on_main(self.run_folder.checkpoints.newest)  # other nodes may not yet see a new file
        state = load_checkpoint(newest) if newest else None
        self.terms = ranks.on_main(lambda: find_terms(experiment, manifest)) if state is None else \
            from_dict(DataTerms, state["data_terms"], str(self.run_folder.checkpoints.folder))
        torch.manual_seed(self.settings.seed)
        network = self.terms.build(experiment.model)
        if start is not None:  # the fixed filters stay those of the data
            load_weights(network, {**network.state_dict(), **start.weights}, str(self.settings.from_))
            if experiment.model.uses_wiener:
                self.first_lines += compare_noise(start.noise, self.terms.noise)
        network = network.to(ranks.device)
        # of a range of blurs, or of noise, each batch has one, with the fixed filters for it
        self.filters = FilterBank(network, self.terms.blurs.filters) if self.terms.has_blurs else None
        self.optimisation = Optimisation(network, self.settings, ranks, self.run_folder.path)

        # Position: step 0, or the step of the checkpoint; later records in the history are dropped
        self.best_step, self.best_psnr = 0, None
        # True if an earlier life was stopped before the validation of its last step, and at the start of a fine-tuning
        self.validation_due = start is not None
        for path in ranks.on_main(self.run_folder.checkpoints.damaged):
            self._print_and_log(f"{path}: damaged or unfinished, skipped")
        if state is not None:
            self._restore(state)
        if ranks.is_main:
            drop_records_after(self.run_folder.metrics, self.step)
        self.events: EventFile | None = None
        self.optimisation.join_ranks()

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return self.optimisation.step

    def run(self, stop: StopFlag) -> None:
        """Train from the current step to the last one; log.txt says how it ended, too."""
        try:
            self._train(stop)
        except Stopped as stopped:
            self._log_end(f"stopped: by {stop.name or 'a signal to another rank'}: {stopped}")
            raise
        except Exception as error:
            self._note_divergence()
            self._log_end(f"failed: {' '.join(str(error).split())[:500] or type(error).__name__}")
            raise
        finally:
            if self.events is not None:
                self.events.close()

    def _train(self, stop: StopFlag) -> None:
        settings, ranks = self.settings, self.ranks
        # a finished run has nothing to do
        if self.step >= settings.steps and not self.validation_due:
            if ranks.is_main:  # the process may have been killed between the last checkpoint and the pruning
                self.run_folder.checkpoints.prune(settings.keep_checkpoints, self.step)
            self._print_and_log(f"{self.run_folder.path}: finished before, {self.step} steps{self._best_text()}; "
                                "nothing to do")
            return
        if settings.tensorboard and ranks.is_main:
            self.events = EventFile(self.run_folder.tensorboard, read_history(self.run_folder.metrics),
                                    settings.batch_size)
        self._print_and_log(self._summary())
        for line in (*self.first_lines, *warn_of_vectors(settings, self.manifest)):
            self._print_and_log(line)
        # batches from the current step on; the seed decides the order of samples, so a resumed run continues it
        patches = Patches(self.frames, settings.patch_size, self.optimisation.network.reach, settings.augment,
                          settings.seed, settings.batch_size, settings.camera_noise)
        num_workers = settings.num_workers if self.memory is None else 0
        batches = load_batches(patches, self.step * settings.batch_size, settings.steps * settings.batch_size,
                               settings.batch_size, ranks.rank, ranks.world_size, num_workers, ranks.device)
        started, losses, taken, asked, figures = time.monotonic(), [], deque(), False, ""
        rate = Rate()  # leaves out validations and checkpoints, which would hide that steps got slower
        with Progress(settings.steps, "training", "step", initial=self.step, shown=ranks.is_main) as progress:
            # a fine-tuned run saves its start, so that it never needs the other run again, and measures it
            if self.validation_due and self.step == 0:
                self._save(improved=False, validation_due=True)
            # do the validation that an earlier life had no time for
            if self.validation_due:
                self._save(self._validate(progress, stop))
            for patch in rate.timed(batches):
                if self.filters is not None:
                    self.filters.choose(patches.level_of(self.step))
                # one step; its loss is read while a GPU computes the next one, unless something is written now
                taken.append(self.optimisation.take_step(patch))
                rate.add(settings.batch_size)
                is_log_due = self.step % settings.log_every == 0 or self.step == settings.steps
                is_save_due = self._is_validation_due() or self.step % settings.checkpoint_every == 0
                late = 0 if is_log_due or is_save_due else STEPS_LATE[ranks.device.type]
                while len(taken) > (0 if asked else late):
                    # with the loss, all ranks learn whether any rank was asked to stop
                    loss = self.optimisation.read(taken.popleft()) / ranks.world_size
                    loss, asked_by = ranks.sum([loss, float(stop.name is not None)])
                    losses.append(loss)
                    figures, asked = f"loss {loss:.5f}{self._best_text()}", asked or asked_by > 0
                progress.advance(figures=figures)
                # a line in metrics.jsonl, with the mean loss since the last one
                if is_log_due:
                    self._append_figures({
                        "loss": sum(losses) / len(losses), "lr": self.optimisation.lr,
                        "samples_per_second": round(rate.restart(), 2), "memory_bytes": ranks.peak_memory(),
                        "skipped_steps": self.optimisation.skipped})
                    losses = []
                # save before the validation, so that a kill during it loses no step
                if is_save_due or asked:
                    self._save(improved=False, validation_due=self._is_validation_due())
                if asked:  # there is no time for a validation; the next life does it
                    raise self._as_stopped()
                # validate and save again, with the score
                if self._is_validation_due():
                    self._save(self._validate(progress, stop))
        divergence = read_progress(self.run_folder).divergence if ranks.is_main else ""
        if divergence:
            self._print_and_log(f"warning: {self.run_folder.path}: diverged: {divergence}")
        if self.best_psnr is not None and self.best_step == 0:
            self._print_and_log(f"warning: {self.run_folder.path}: no validation was better than that of the start, "
                                "whose weights it keeps as its best; lower train.lr or train longer")
        self._print_and_log(f"{self.run_folder.path}: trained {settings.steps} steps in "
                            f"{format_seconds(time.monotonic() - started)}{self._best_text()}")

    def _as_stopped(self) -> Stopped:
        return Stopped(f"{self.run_folder.path}: saved at step {self.step} of {self.settings.steps}; "
                       "the same command continues")

    def _is_validation_due(self) -> bool:
        """Return whether the current step ends with a validation, as the last step always does."""
        every = self.settings.validate_every
        return self.step == self.settings.steps or bool(every and self.step % every == 0)

    def _validate(self, progress: Progress, stop: StopFlag) -> bool:
        """Measure the averaged weights, which are already saved, and return whether they are the best so far.

        In the first stage only the 2D part is measured, and its checkpoint is never the best one.
        """
        first_stage = 0 < self.step <= self.settings.first_stage_steps
        network = self.optimisation.average.network
        upscale = network.upscale_first_stage if first_stage else network.upscale
        margin = prepare_reach(network, self.manifest, self.ranks)
        found = validate(upscale, self.validation, self.ranks, self.settings.precision, self.settings.validate_samples,
                         lambda: stop.name is not None, margin, with_ssim=self.settings.tensorboard)
        if found is None:
            raise self._as_stopped()
        improved = (not first_stage and math.isfinite(found.psnr)
                    and (self.best_psnr is None or found.psnr > self.best_psnr))
        if improved:
            self.best_psnr, self.best_step = found.psnr, self.step
        self._append_figures({"validation_first_stage" if first_stage else "validation": as_dict(found)})
        note = " (first stage)" if first_stage else " (best)" if improved else ""
        progress.say(f"step {self.step}: validation {found.psnr:.2f} dB{note}")
        return improved

    def _save(self, improved: bool, validation_due: bool = False) -> None:
        """Write a checkpoint on the main rank; the other ranks wait for it."""
        if self.ranks.is_main:
            self.lock.check()
            self.run_folder.checkpoints.folder.mkdir(exist_ok=True)
            state = {
                **network_state(self.experiment.model, self.terms, self.optimisation.average.network.state_dict()),
                **self.optimisation.state(),
                "step": self.step, "samples_seen": self.step * self.settings.batch_size,
                "best_psnr": self.best_psnr, "best_step": self.best_step, "bad_steps": self.optimisation.bad_steps,
                "skipped": self.optimisation.skipped, "validation_due": validation_due,
                "config": self.config,
            }
            save_checkpoint(self.run_folder.checkpoints, state, self.step, self.settings.keep_checkpoints,
                            self.best_psnr if improved else None)
        self.ranks.barrier()

    def _restore(self, state: dict) -> None:
        """Continue from a checkpoint; raise `InputError` if it does not fit or is damaged."""
        self.optimisation.restore(state, str(self.run_folder.checkpoints.path_of(state["step"])))
        self.best_step, self.best_psnr = state["best_step"], state["best_psnr"]
        self.validation_due = state.get("validation_due", False)
        if self.ranks.is_main and self.best_psnr is not None:
            self.run_folder.checkpoints.restore_best(self.best_step, self.best_psnr)

    def _append_figures(self, figures: dict) -> None:
        """Append a line to metrics.jsonl."""
        if self.ranks.is_main:
            self.lock.check()
            samples = self.step * self.settings.batch_size
            record = {"step": self.step, "samples_seen": samples, "epoch": samples / len(self.frames), **figures}
            append_record(self.run_folder.metrics, record)
            if self.events is not None:
                self.events.append(record)

    def _print_and_log(self, text: str) -> None:
        """Print a line on standard error and append it to log.txt, on the main rank."""
        if self.ranks.is_main:
            print(text, file=sys.stderr, flush=True)
            append_text(self.run_folder.log, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")

    def _log_end(self, text: str) -> None:
        """Append to log.txt how the training ended, unless another process writes there by now."""
        if self.ranks.is_main:
            with contextlib.suppress(OSError, Failed, InputError):
                self.lock.check()
                append_text(self.run_folder.log, f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")

    def _note_divergence(self) -> None:
        """Append the last bad steps to metrics.jsonl, which has a line only every `log_every` steps."""
        if self.optimisation.bad_steps:
            with contextlib.suppress(OSError, Failed, InputError):
                self._append_figures({"loss": math.nan, "skipped_steps": self.optimisation.skipped,
                                      "bad_steps": self.optimisation.bad_steps})

    def _summary(self) -> str:
        settings = self.settings
        resumed = f"resumed at step {self.step}, " if self.step else ""
        start = read_start(self.config, str(self.run_folder.config))
        resumed += f"fine-tuned from {start.run}, " if start else ""
        where = f"frames on {self.memory}" if self.memory is not None else "frames read from the shards"
        ranks = f"{self.ranks.world_size} rank{'s' * (self.ranks.world_size > 1)} on {self.ranks.device.type}"
        blurs = f"blurs of {settings.sigma} HR pixels, " if settings.sigma else ""
        blurs += f"noise of {settings.noise} grey levels, " if settings.noise else ""
        return (f"{self.run_folder.path}: {resumed}{self.experiment.model.name}, "
                f"{count_parameters(self.optimisation.network):,} parameters, {settings.steps} steps of "
                f"{settings.batch_size} samples, {blurs}{settings.precision}, {ranks}, {where}")

    def _best_text(self) -> str:
        return f", best validation {self.best_psnr:.2f} dB" if self.best_psnr is not None else ""
