"""The lock of a folder: who holds it, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from waiting import wait_until

from hpc_vsr.system import lock, lock_newcomer
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.lock import is_held, only_writer, read_lock, remove_left

HOLD = ("import sys, time; from pathlib import Path; from hpc_vsr.system.lock import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)")  # until it is killed


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "SLURM_JOB_ID": "12"})
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock_newcomer, "PATIENCE_SECONDS", 0.6)


def leave(folder, **changes) -> None:
    """The file of a process on another node that crashed."""
    holder = {"host": "elsewhere", "pid": 1, "job": None, "restart": 0, "since": "2026-01-01 00:00:00", "beat": 3}
    (folder / ".lock").write_text(json.dumps({**holder, **changes}))


def test_the_second_is_told_who_the_first_is(tmp_path, holder):
    with pytest.raises(InputError, match=rf"job 12 \(process {holder.pid} on .*'scancel 12'"), only_writer(tmp_path):
        pass
    assert is_held(tmp_path) and read_lock(tmp_path).pid == holder.pid


def test_a_killed_holder_leaves_the_folder_free_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_held(tmp_path)
    with only_writer(tmp_path):
        assert read_lock(tmp_path).pid == os.getpid()


def test_what_a_killed_holder_left_can_be_removed_and_a_held_lock_cannot(tmp_path, holder):
    remove_left(tmp_path)
    assert is_held(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    remove_left(tmp_path), remove_left(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_it(tmp_path):
    with only_writer(tmp_path):
        assert is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_number_of_a_process_elsewhere_that_stands_still_is_nobodys(tmp_path, quick, capfd):
    leave(tmp_path)
    with only_writer(tmp_path):
        assert read_lock(tmp_path).pid == os.getpid()
    assert "process 1 on elsewhere, since 2026-01-01 00:00:00 wrote into it last" in capfd.readouterr().err


def test_a_process_elsewhere_that_counts_has_the_folder(tmp_path, monkeypatch):
    """As on a file system that does not carry locks to other nodes."""
    leave(tmp_path)
    counts = iter(range(10_000))
    monkeypatch.setattr(lock_newcomer.time, "sleep", lambda _: leave(tmp_path, beat=next(counts)))
    with pytest.raises(InputError, match="process 1 on elsewhere.* is writing into it"), only_writer(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "\xff"])
def test_a_damaged_lock_holds_nobody(tmp_path, text):
    (tmp_path / ".lock").write_text(text, encoding="latin-1")
    with only_writer(tmp_path):
        assert read_lock(tmp_path).pid == os.getpid()


def test_an_earlier_life_of_the_same_job_gives_way(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with only_writer(tmp_path) as first:
        first.check()
        later = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "SLURM_RESTART_COUNT": "1"})
        wait_until(lambda: first._taken_by, "the later life to ask")
        with pytest.raises(Failed, match=r"job 7 \(process .*\) has taken over"):
            first.check()
    assert later.stdout.readline() == "held\n"
    assert read_lock(tmp_path).restart == 1 and not (tmp_path / ".lock.next").exists()
    later.kill()
    later.wait()


def test_an_earlier_life_does_not_push_out_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with only_writer(tmp_path):
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with pytest.raises(InputError, match="is writing into it"), only_writer(tmp_path):
            pass


def test_a_process_that_slept_and_was_given_up_writes_no_more(tmp_path, quick, monkeypatch):
    """Its node froze; another node took the folder. What wakes up must see that before it writes."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 60.0)
    with only_writer(tmp_path) as first:
        first._last_beat -= 100
        first.check()  # nobody took it
        (tmp_path / ".lock").unlink()
        leave(tmp_path)
        with pytest.raises(Failed, match="process 1 on elsewhere.* has taken over"):
            first.check()
    assert read_lock(tmp_path).host == "elsewhere", "the lock of the other was deleted"


def test_a_dead_nodes_lock_that_the_file_system_keeps_is_left_to_it(tmp_path, quick, holder):
    """As NFS does until the node starts again: locked, and its number stands still."""
    leave(tmp_path)
    with only_writer(tmp_path):
        assert read_lock(tmp_path).pid == os.getpid()


@pytest.fixture
def no_flock(monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock_newcomer.fcntl, "flock", refuse)
    monkeypatch.setattr(lock_newcomer, "SETTLE_SECONDS", 0.05)


def test_without_flock_a_living_process_of_this_node_has_the_folder(tmp_path, no_flock, holder):
    with pytest.raises(InputError, match=rf"job 12 \(process {holder.pid} on "), only_writer(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with only_writer(tmp_path):
        assert read_lock(tmp_path).pid == os.getpid()


def test_without_flock_the_last_of_two_who_write_at_once_has_it(tmp_path, no_flock, monkeypatch):
    monkeypatch.setattr(lock_newcomer.time, "sleep", lambda _: leave(tmp_path))  # another node writes right after us
    monkeypatch.setattr(lock_newcomer, "stands_still", lambda *_: False)
    with pytest.raises(InputError, match="process 1 on elsewhere"), only_writer(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be written"), only_writer(tmp_path / "nowhere"):
        pass
