"""Writes files whole or not at all, with checksums, and checks them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_vsr.system.errors import InputError

SEAL = "content_sha256"


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error, it becomes `path`, safely on disk.

    A crash at any moment leaves the old file or the new one. The temporary name depends only on `path`, so the next
    process removes the file that a killed one has left, or a link that someone has put there.
    """
    temporary = partial_path(path)
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        # the content must be on disk before it gets its name; then the folder's entry is synced too
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def partial_path(path: Path) -> Path:
    """Return the temporary name that `write_whole` uses for `path`."""
    return path.with_name(f".{path.name}.partial")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append to a text file in UTF-8; raise `InputError` if it is a link, because that could change another file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a link to another file; delete it") from None
        raise
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all, indented, with keys in the given order; refuse NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_sealed(path: Path, value: dict) -> None:
    """Write an object with `write_json`, with a checksum of its content as its last key; `read_sealed` checks it."""
    write_json(path, {**value, SEAL: _checksum_of(value)})


def read_sealed(path: Path, mend: str) -> dict:
    """Return an object that `write_sealed` wrote, without its checksum; raise `InputError` if it was changed.

    `mend` ends the message and says what helps.
    """
    value = read_json(path, mend)
    if not isinstance(value, dict) or SEAL not in value:
        raise InputError(f"{path}: has no checksum, so it is damaged or of an earlier version; {mend}")
    seal = value.pop(SEAL)
    if seal != _checksum_of(value):
        raise InputError(f"{path}: is damaged or was changed by hand (its checksum differs); {mend}")
    return value


def _checksum_of(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json_once(path: Path, value: Any) -> None:
    """Write a JSON file that several processes may write: the file of the first one stays.

    `remove_left_together` removes the temporary files of killed processes.
    """
    # each process writes its own temporary file: host and process number make the name unique
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        write_json(temporary, value)
        # a hard link fails if the name is taken, so only the first process gets it
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            temporary.replace(path)
    except FileNotFoundError:  # `path` exists, so another process has removed the temporary file
        if not path.exists():
            raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_together(path: Path) -> None:
    """Remove the temporary files of processes that were killed in `write_json_once`; call it when `path` exists."""
    for left in path.parent.glob(f".*{path.name}.*.partial"):
        left.unlink(missing_ok=True)


def looked_in(path: Path) -> str:
    """Return " in FOLDER" for a relative path, which begins in the working folder wherever it was written; else ""."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def not_found(path: Path) -> str:
    """Return the beginning of a message about a missing file or folder: "PATH: not found in FOLDER"."""
    return f"{path}: not found{looked_in(path)}"


def no_folder(path: Path) -> str:
    """Return the beginning of a message about a folder that is missing, or is a file."""
    return f"{path}: is not a folder" if path.exists() else not_found(path)


def read_json(path: Path, mend: str) -> Any:
    """Return the content of a JSON file; an `InputError` says what is wrong with it and how to `mend` it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{not_found(path)}; {mend}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; {mend}") from None
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError, or nested too deeply
        raise InputError(f"{path}: is damaged ({error}); {mend}") from None


def write_checked(path: Path, content: bytes | memoryview) -> None:
    """Write a file and its checksum; if it replaces a valid file, there is a valid one at every moment."""
    former = f"{sha256(path)}  {path.name}\n" if is_valid(path) else ""
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    # while the file is being replaced, its checksum file lists the old and the new checksum
    if former:
        write_text(checksum_path(path), former + line)
    with write_whole(path) as temporary:
        temporary.write_bytes(content)
    write_text(checksum_path(path), line)


def record_checksum(path: Path) -> None:
    """Write ``NAME.sha256`` beside a whole file, in the format of `sha256sum --check`; `is_valid` compares it."""
    write_text(checksum_path(path), f"{sha256(path)}  {path.name}\n")


def is_valid(path: Path) -> bool:
    """Return whether a file exists and has its recorded checksum."""
    try:
        return sha256(path) in checksum_path(path).read_text().split()
    except (OSError, UnicodeDecodeError):
        return False


def checksum_path(path: Path) -> Path:
    """Return the path of a file's checksum, NAME.sha256."""
    return path.with_name(f"{path.name}.sha256")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_time(path: Path) -> float:
    """Return when a file was last written, in seconds since 1970; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def check_input_file(path: Path, what: str) -> None:
    """Raise `InputError` unless `path` is a readable file that is not empty."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a folder above cannot be searched
        raise InputError(f"{path}: is a folder; give {what}")
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError(f"{not_found(path)}, or a folder above it cannot be searched; give {what}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; give {what}")


def create_folder(folder: Path) -> None:
    """Create a folder and its parents; raise `InputError` if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"  # the same name each time, so that the next run removes it after a kill
        probe.touch()
        probe.unlink(missing_ok=True)  # another task of the same job may have removed it first
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another --out") from None


def check_free_space(folder: Path, num_bytes: int) -> None:
    """Raise `InputError` unless the file system of `folder` has room for `num_bytes` and 64 MiB more."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes + (64 << 20):
        raise InputError(f"{folder}: needs {format_bytes(num_bytes)}, but only {format_bytes(free)} are free; "
                         "choose another --out or make room")


def count_of(number: int, what: str) -> str:
    """Return a number of things as text, such as '1 clip' and '3 clips'."""
    return f"{number} {what}{'s' * (number != 1)}"


def format_bytes(num_bytes: float) -> str:
    """Return a size for people: '512 B', '3.4 MB', '1.2 GB' (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
