"""Finds the checkpoints of a run: all, the whole ones, the newest and the best. This needs no torch."""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import checksum_path, is_valid, partial_path, read_sealed, sha256, write_sealed

BEST = "best.json"
STEP = re.compile(r"step-(\d+)\.pt")


class Checkpoints:
    """The files ``step-00001000.pt`` of a folder; each is read and checked once, and again after `forget_checks`.

    Parameters
    ----------
    folder : Path
        It need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._whole: dict[Path, bool] = {}

    def forget_checks(self) -> None:
        """Forget earlier checks, because this or another process may have written a checkpoint."""
        self._whole.clear()

    def path_of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    @staticmethod
    def step_of(path: Path) -> int:
        return int(STEP.fullmatch(path.name)[1])

    def paths(self) -> list[Path]:
        """Return all checkpoints, whole or not, the oldest first."""
        return sorted(path for path in self.folder.glob("step-*.pt") if STEP.fullmatch(path.name))

    def is_whole(self, path: Path) -> bool:
        """Return whether a checkpoint has its recorded checksum."""
        if path not in self._whole:
            self._whole[path] = is_valid(path)
        return self._whole[path]

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint, or None."""
        return next((path for path in reversed(self.paths()) if self.is_whole(path)), None)

    def damaged(self) -> list[Path]:
        """Return the checkpoints after the newest whole one; a resumed training skips them."""
        newest = self.newest()
        return [path for path in reversed(self.paths()) if newest is None or path > newest]

    def best(self) -> Path:
        """Return the checkpoint with the best validation score; if that is damaged, warn and return the newest.

        If best.json is lost or damaged, the newest checkpoint names the best one.

        Raises
        ------
        InputError
            If no checkpoint is whole.
        """
        newest = self.newest()
        if newest is None:
            raise InputError(f"{self.folder}: has no valid checkpoint; train it first with 'python -m hpc_vsr.train'")
        best = self._read_best_name() or self._best_known_to(newest)
        if best == newest or self.is_whole(best):
            return best
        print(f"warning: {best}, the best checkpoint, is damaged or lost; using the newest, {newest.name}",
              file=sys.stderr)
        return newest

    def rank_of(self, path: Path) -> str:
        """Return what `best` has chosen: "best validated", or "newest" if none was validated or the best is lost."""
        return "best validated" if path == self._read_best_name() else "newest"

    def best_sha256(self) -> str:
        """Return the SHA-256 of the checkpoint that `best` chooses."""
        return sha256(self.best())

    def record_best(self, step: int, score: float) -> None:
        """Write best.json, which names the best checkpoint."""
        write_sealed(self.folder / BEST, {"file": self.path_of(step).name, "step": step, "psnr": score})

    def restore_best(self, step: int, score: float) -> None:
        """Write best.json if the best checkpoint is whole and best.json does not name it."""
        if self.is_whole(self.path_of(step)) and self._read_best_name() != self.path_of(step):
            self.record_best(step, score)

    def prune(self, keep: int, step: int) -> None:
        """Delete all checkpoints but the best one and the newest `keep` up to `step`, which is whole.

        Checkpoints of later steps are deleted: they were damaged, and the training continued from an earlier one.
        """
        paths = self.paths()
        whole = [path for path in paths if path <= self.path_of(step) and checksum_path(path).exists()]
        stay = {*whole[-max(1, keep):], self._read_best_name()}
        for path in paths:
            if path not in stay:
                checksum_path(path).unlink(missing_ok=True)
                path.unlink()
        for path in self.folder.glob(partial_path(Path("*")).name):  # left by a process that was killed
            path.unlink(missing_ok=True)

    def _read_best_name(self) -> Path | None:
        """Return the checkpoint that best.json names, or None if that file is lost or damaged."""
        try:
            name = str(read_sealed(self.folder / BEST, "").get("file"))
        except InputError:
            return None
        return self.folder / name if STEP.fullmatch(name) else None

    def _best_known_to(self, path: Path) -> Path:
        """Return the checkpoint that was the best when `path` was written; `path` if none had been validated."""
        facts = read_facts(path)
        return path if facts.get("best_psnr") is None else self.path_of(facts.get("best_step", 0))


class _Mapping(dict):
    """A substitute for OrderedDict; unlike dict, it accepts the attributes that torch sets."""


class _FactsReader(pickle.Unpickler):
    """A reader of torch's pickles that puts None in place of tensors; it imports and runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        return _Mapping if name == "OrderedDict" else _return_none

    def persistent_load(self, _identity: Any) -> None:
        return None


def _return_none(*_) -> None:
    return None


def read_facts(path: Path) -> dict[str, Any]:
    """Return the numbers and settings of a checkpoint, without torch; its tensors are None.

    Raises
    ------
    InputError
        If the file is damaged, or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # torch compresses nothing
                raise pickle.UnpicklingError("it is compressed")
            facts = _FactsReader(io.BytesIO(archive.read(name))).load()
        if not isinstance(facts, dict):
            raise pickle.UnpicklingError(f"it holds a {type(facts).__name__}")
        if not all(isinstance(facts.get(key, 0), int) for key in ("step", "best_step")):
            raise pickle.UnpicklingError("its steps are not numbers")
    except Exception as error:  # a damaged file fails in many ways inside zipfile and pickle
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be loaded ({reason}); delete it") from None
    return facts
