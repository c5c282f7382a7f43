"""Checks the places of data sets and runs: file system, free space, speed, HDF5 and locks."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpc_vsr.data.shards import try_hdf5
from hpc_vsr.doctor.findings import Finding, ask
from hpc_vsr.system.errors import InputError, storage_failure
from hpc_vsr.system.files import format_bytes
from hpc_vsr.system.lock import only_writer

PROBE_BYTES = 32 << 20
SLOW = 50e6  # bytes per second
LITTLE = 5e9  # bytes
SCRATCH = ("SCRATCH", "PSCRATCH", "LOCAL", "SLURM_TMPDIR", "TMPDIR")
QUOTAS = (("quota", "-s"), ("quotas",), ("lfs", "quota", "-h", "."))


def check_storage(folders: Sequence[Path]) -> Iterator[Finding]:
    """Check each folder, and report scratch folders and quotas."""
    for folder in folders:
        yield from _check_folder(folder)
    scratch = [f"{name}={os.environ[name]}" for name in SCRATCH if os.environ.get(name)]
    yield Finding("storage", "scratch", "ok", ", ".join(scratch) or "no variable names one; data/ and runs/ are used")
    for command in QUOTAS:
        if shutil.which(command[0]):
            lines = [line.strip() for line in ask(command, seconds=20).stdout.splitlines() if line.strip()]
            if lines:
                yield Finding("storage", "quota", "ok", f"'{' '.join(command)}' says: {'; '.join(lines[:4])}")
                return


def _check_folder(folder: Path) -> Iterator[Finding]:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    label = f"{folder}/"
    try:
        probe = Path(tempfile.mkdtemp(prefix=".doctor-", dir=existing))
    except OSError as error:
        yield Finding("storage", label, "broken", f"cannot be written: {error.strerror}", "choose another --out")
        return
    try:
        usage = shutil.disk_usage(existing)
        speed = _write_speed(probe / "probe")
        little, slow = usage.free < LITTLE, speed < SLOW
        yield Finding("storage", label, "warning" if little or slow else "ok",
                      f"{file_system(existing)}, {format_bytes(usage.free)} free, writes {speed / 1e6:,.0f} MB/s",
                      "make room, or use another folder" if little else "use a faster file system" if slow else "")
        reason = try_hdf5(probe / "probe.h5")
        yield Finding("storage", f"{label} HDF5", "broken" if reason else "ok", reason or "written and read back",
                      "export HDF5_USE_FILE_LOCKING=FALSE" if reason else "")
        yield _check_lock(probe, f"{label} lock")
    except OSError as error:
        yield Finding("storage", label, "broken", storage_failure(error) or str(error), "use another folder")
    finally:
        shutil.rmtree(probe)


def _check_lock(probe: Path, label: str) -> Finding:
    try:
        with only_writer(probe):
            try:
                with only_writer(probe):
                    return Finding("storage", label, "warning", "this file system does not lock files",
                                   "a second job on a run is noticed only by its beats, within 20 s")
            except InputError:
                return Finding("storage", label, "ok", "a second writer is refused")
    except InputError as error:
        return Finding("storage", label, "broken", str(error), "use another folder")


def _write_speed(path: Path) -> float:
    """Return the bytes per second that reach the disk."""
    block = os.urandom(1 << 20)
    started = time.monotonic()
    with path.open("wb") as stream:
        for _ in range(PROBE_BYTES >> 20):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return PROBE_BYTES / max(time.monotonic() - started, 1e-9)


def file_system(path: Path) -> str:
    """Return the type of the file system, such as lustre, nfs4 or ext4."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "file system unknown"
    points = [(point.replace("\\040", " "), kind) for _, point, kind, *_ in mounts]
    inside = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    return max(inside, key=lambda item: len(item[0]))[1] if inside else "file system unknown"
