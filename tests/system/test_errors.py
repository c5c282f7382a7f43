"""An error of the file system becomes one line."""

from __future__ import annotations

import errno
import sys

import pytest

from hpc_vsr.system.errors import FAILED, exit_status, memory_failure, storage_failure

HDF5 = "Can't write data (file write failed: errno = {}, error message = '...')"


@pytest.mark.parametrize(("error", "line"), [
    (OSError(errno.ENOSPC, "", "runs/a.pt"), "runs/a.pt: No space left on device; make room and run the same command"),
    (OSError(HDF5.format(errno.EDQUOT)), "Disk quota exceeded; make room"),
    (RuntimeError(HDF5.format(errno.EFBIG)), "File too large; raise"),
    (OSError("no number"), None),
    (ValueError("errno = 28"), None),
    (FileNotFoundError(errno.ENOENT, "", "x"), None),
])
def test_a_failure_of_storage_is_named(error, line):
    found = storage_failure(error)
    assert found is None if line is None else found.startswith(line)


@pytest.mark.parametrize(("error", "is_told"), [
    (MemoryError("Unable to allocate 3 GiB"), True),
    (RuntimeError("could not create a primitive"), True),  # oneDNN
    (RuntimeError("can't start new thread"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("GET was unable to find an engine to execute this computation"), True),  # cuDNN
    (SystemError("error return without exception set"), True),
    (ImportError("scipy/a.so: failed to map segment from shared object"), True),
    (ImportError("a.so: cannot open shared object file: No such file or directory"), False),
    (RuntimeError("shapes do not match"), False),
])
def test_out_of_memory_is_told(error, is_told):
    told = memory_failure(error)
    assert told is None if not is_told else f"out of memory ({error})" in told and "more memory" in told


def test_it_ends_a_stage_with_one_line(capsys):
    def main(_):
        raise OSError(errno.EIO, "", "data/x.h5")

    assert exit_status(main) == FAILED
    assert capsys.readouterr().err == ("failed: data/x.h5: Input/output error; check the file system and run the same "
                                       "command again\n")


@pytest.mark.parametrize(("error", "shown"), [(RuntimeError(HDF5.format(errno.ENOSPC)), False),
                                              (RuntimeError("x"), True)])
def test_what_h5py_drops_on_a_full_disk_is_not_shown(monkeypatch, capsys, error, shown):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    class Dropped:
        def __del__(self):
            raise error

    def main(_):
        Dropped()
        sys.excepthook(type(error), error, None)

    assert exit_status(main) == 0
    assert capsys.readouterr().err.count("RuntimeError") == (2 if shown else 0)
