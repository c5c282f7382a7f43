"""The exceptions that end a stage, and its exit statuses."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

DONE, FAILED, BAD_INPUT, CAN_CONTINUE = 0, 1, 2, 75  # exit statuses
PACKAGE, OLDEST_PYTHON = "hpc_vsr", (3, 11)
STORAGE = {  # errors of a file system, and what helps
    errno.ENOSPC: "make room", errno.EDQUOT: "make room within the quota", errno.EFBIG: "raise the limit of file sizes",
    errno.EROFS: "choose a folder that can be written", errno.EACCES: "check its permissions",
    errno.EIO: "check the file system", errno.ESTALE: "check the file system", errno.EREMOTEIO: "check the file system",
    errno.EMFILE: "raise the limit of open files (ulimit -n)", errno.ENOMEM: "give it more memory",
}
# messages of torch, oneDNN, Python's extension modules and the library loader when they get no memory
NO_MEMORY = ("out of memory|(can't|cannot) allocate memory|could not create a primitive|can't start new thread"
             "|alloc_failed|unable to find an engine"  # cuBLAS, and cuDNN without room for any of its algorithms
             "|error return without exception|failed to map segment|cannot create shared object descriptor")


class InputError(ValueError):
    """Wrong input from the user; the message says in one line what, where and how to mend it. Exit status 2.

    Attributes
    ----------
    agreed : bool
        True if every rank has raised it; each can then end by itself.
    """

    agreed = False


class ToldElsewhere(InputError):
    """An `InputError` that another rank prints; this rank ends with the same status and prints nothing."""

    agreed = True


class Stopped(Exception):
    """A stage was asked to stop and has saved; the same command continues it. Exit status 75 (EX_TEMPFAIL)."""


class Failed(Exception):
    """Something that the stage started or waited for has failed; the message says what and where. Exit status 1."""


def raise_together(message: str, is_main: bool) -> NoReturn:
    """Raise the same `InputError` on every rank; only the main rank prints it."""
    error = InputError(message) if is_main else ToldElsewhere(message)
    error.agreed = True
    raise error


def call_on_main(function: Callable[[], Any], is_main: bool, broadcast: Callable[[Any], Any]) -> Any:
    """Call `function` on the main rank and return its value on every rank.

    Its `InputError` ends every rank and is printed once. `broadcast` returns the main rank's object on every rank.
    """
    value, message = None, None
    if is_main:
        try:
            value = function()
        except InputError as error:
            message = str(error)
    value, message = broadcast((value, message))
    if message is not None:
        raise_together(message, is_main)
    return value


def memory_failure(error: BaseException) -> str | None:
    """Return a line for an error of Python, numpy or torch that means too little memory; None for any other error."""
    found = isinstance(error, (RuntimeError, SystemError, ImportError)) and re.search(NO_MEMORY, str(error), re.I)
    if not found and not isinstance(error, MemoryError):
        return None
    reason = str(error).splitlines()[0][:200] if str(error) else "no reason given"
    return f"out of memory ({reason}); choose smaller patches, batches or tiles, or give the job more memory"


def storage_failure(error: BaseException) -> str | None:
    """Return a line for an error of the file system (which file, why, what helps); None for any other error."""
    found = re.search(r"errno = (\d+)", str(error))  # HDF5 reports it like this, as OSError or RuntimeError
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    if number not in STORAGE or not isinstance(error, (OSError, RuntimeError)):
        return None
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    return f"{where}{os.strerror(number)}; {STORAGE[number]} and run the same command again"


def missing_library(error: BaseException) -> str | None:
    """Return a line for an import that failed because the environment is not loaded; None for any other error."""
    is_old = sys.version_info < OLDEST_PYTHON
    if not isinstance(error, ImportError) or not is_old and (error.name or PACKAGE).partition(".")[0] == PACKAGE:
        return None
    found = f"Python {sys.version_info.major}.{sys.version_info.minor} is too old" if is_old else str(error)
    return (f"{sys.executable} on {os.uname().nodename} cannot run hpc-vsr ({' '.join(found.split())}): run "
            "'make setup' in its folder and activate .venv, or load your environment, and run the same command again")


def _on_unraisable(unraisable: Any) -> None:
    """Handle an exception that Python drops, as in a `__del__`: repeat a Ctrl-C, and show all but storage errors."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif storage_failure(unraisable.exc_value) is None:  # h5py drops it, and closing the file raises it again
        sys.__unraisablehook__(unraisable)


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Show an uncaught error, unless it is a storage error, which h5py also raises properly."""
    if storage_failure(error) is None:
        sys.__excepthook__(kind, error, trace)


def exit_status(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a stage and return its exit status: 0 done, 2 bad input, 75 can continue, 1 anything else."""
    sys.unraisablehook, sys.excepthook = _on_unraisable, _on_uncaught
    try:
        main(argv)
    except ToldElsewhere:
        return BAD_INPUT
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return CAN_CONTINUE
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        sys.stderr.close()
        return FAILED
    except Exception as error:
        reason = memory_failure(error) or storage_failure(error)
        lack = missing_library(error)
        if reason is None and lack is not None:
            print(f"error: {lack}", file=sys.stderr)
            return BAD_INPUT
        if reason is None:
            traceback.print_exc()
        else:
            print(f"failed: {reason}", file=sys.stderr)
        return FAILED
    return DONE
