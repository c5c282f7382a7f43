"""The record of where a fine-tuned run starts: the run whose weights it took, and where that run started itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpc_vsr.system.config import Record, from_dict

KEY = "start"  # in config.json and in the `config` of a checkpoint


@dataclass(frozen=True, kw_only=True)
class Start(Record):
    """The weights that a fine-tuned run started from.

    Attributes
    ----------
    run : str
        Name of that run.
    file : str
        Name of its checkpoint.
    step : int
        Step of that checkpoint.
    sha256 : str
        Checksum of that checkpoint.
    data_fingerprint : str
        Fingerprint of the data set that it was trained on; "published" for imported weights.
    before : Start or None
        Where that run started itself.
    imported : dict or None
        The file that its weights were imported from, with its SHA-256.
    """

    run: str
    file: str
    step: int
    sha256: str
    data_fingerprint: str
    before: Start | None = None
    imported: dict[str, Any] | None = None

    def __str__(self) -> str:
        text = f"{self.run} (SHA-256 {self.sha256}) at step {self.step}"
        if self.imported:
            return f"{text}, imported from {self.imported.get('file')} (SHA-256 {self.imported.get('sha256')})"
        return f"{text}, which was fine-tuned from {self.before}" if self.before else text

    @property
    def chain(self) -> Iterator[Start]:
        """This start and those before it, the latest first."""
        found: Start | None = self
        while found is not None:
            yield found
            found = found.before


def read_start(config: dict[str, Any], where: str) -> Start | None:
    """Return the start that the configuration of a run records; None if it began with new or imported weights."""
    found = config.get(KEY)
    return None if found is None else from_dict(Start, found, f"{where}: {KEY}")
