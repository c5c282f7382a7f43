"""How a stage ends: its exceptions and its exit status."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

DONE, FAILED, BAD_INPUT, CAN_CONTINUE = 0, 1, 2, 75  # exit statuses
STORAGE = {  # what a file system may answer at any moment, and what helps
    errno.ENOSPC: "make room", errno.EDQUOT: "make room within the quota", errno.EFBIG: "raise the limit of file sizes",
    errno.EROFS: "choose a folder that can be written", errno.EACCES: "check its permissions",
    errno.EIO: "check the file system", errno.ESTALE: "check the file system", errno.EREMOTEIO: "check the file system",
    errno.EMFILE: "raise the limit of open files (ulimit -n)", errno.ENOMEM: "give it more memory",
}
# what torch, oneDNN, an extension module of Python and the loader of libraries say when they get none
NO_MEMORY = ("out of memory|(can't|cannot) allocate memory|could not create a primitive|can't start new thread"
             "|alloc_failed|unable to find an engine"  # cuBLAS, and cuDNN without room for any of its ways
             "|error return without exception|failed to map segment|cannot create shared object descriptor")


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what, where, how to mend it. Exit status 2.

    Attributes
    ----------
    agreed : bool
        Whether every rank has it, so that each can end by itself.
    """

    agreed = False


class ToldElsewhere(InputError):
    """An `InputError` that another rank prints; this one ends with the same status in silence."""

    agreed = True


class Stopped(Exception):
    """Asked to stop, saved, and the same command continues. Exit status 75 (EX_TEMPFAIL)."""


class Failed(Exception):
    """Something that the stage started or waited for has failed; the message says what and where. Exit status 1."""


def memory_failure(error: BaseException) -> str | None:
    """One line for what Python, numpy or torch says when memory is not to be had; None for any other error."""
    told = isinstance(error, (RuntimeError, SystemError, ImportError)) and re.search(NO_MEMORY, str(error), re.I)
    if not told and not isinstance(error, MemoryError):
        return None
    reason = str(error).splitlines()[0][:200] if str(error) else "the system gave none"
    return f"out of memory ({reason}); choose smaller patches, batches or tiles, or give the job more memory"


def storage_failure(error: BaseException) -> str | None:
    """One line for what the file system answered: which file, why, what helps; None for any other error."""
    told = re.search(r"errno = (\d+)", str(error))  # so HDF5 has it, as OSError or RuntimeError
    number = getattr(error, "errno", None) or (int(told[1]) if told else None)
    if number not in STORAGE or not isinstance(error, (OSError, RuntimeError)):
        return None
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    return f"{where}{os.strerror(number)}; {STORAGE[number]} and run the same command again"


def _on_unraisable(unraisable: Any) -> None:
    """What Python drops, such as in a `__del__`: a Ctrl-C is sent once more, all but a full disk is shown."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif storage_failure(unraisable.exc_value) is None:  # h5py drops one, and closing the file raises it again
        sys.__unraisablehook__(unraisable)


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """h5py shows here what it drops."""
    if storage_failure(error) is None:
        sys.__excepthook__(kind, error, trace)


def exit_status(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a stage and say in its exit status how it ended: 0 done, 2 bad input, 75 can continue, 1 anything else."""
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
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        return FAILED
    except Exception as error:
        reason = memory_failure(error) or storage_failure(error)
        if reason is None:
            traceback.print_exc()
        else:
            print(f"failed: {reason}", file=sys.stderr)
        return FAILED
    return DONE
