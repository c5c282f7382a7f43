"""doctor: what it finds on this machine, and that it finds what is broken."""

from __future__ import annotations

import errno

import pytest
import torch
from stages import run_stage

from hpc_vsr.doctor import arithmetic, slurm, storage
from hpc_vsr.doctor.findings import Finding, format_findings
from hpc_vsr.doctor.storage import check_storage
from hpc_vsr.models.blocks import Conv3d

pytestmark = pytest.mark.slow


def test_the_table_says_what_is_ok_and_what_to_do(tmp_path):
    done = run_stage("doctor", cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {tuple(line.split()[1:3]): line.split()[0] for line in done.stdout.splitlines()
            if line.startswith(("ok ", "warning ", "broken "))}
    assert rows["arithmetic", "fp32"] == rows["arithmetic", "bf16"] == rows["training", "gloo"] == "ok"
    assert rows["SLURM", "commands"] == "warning" and "-> log in to the cluster" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(", 0 broken")
    assert not list(tmp_path.iterdir())


@pytest.mark.mpi
def test_ranks_of_mpiexec_see_each_other(tmp_path):
    done = run_stage("doctor", cwd=tmp_path)
    assert "starts 2 ranks that see each other" in done.stdout


def test_a_folder_that_cannot_be_written_is_broken_and_ends_with_status_1(tmp_path):
    done = run_stage("doctor", "--folders", "[/proc/nowhere]", cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert done.returncode == 1
    assert "failed: broken: storage /proc/nowhere/; the table says what to do" in done.stderr


def test_wrong_convolutions_are_found(monkeypatch):
    """As cuDNN 9.8 computed some in half precision."""
    monkeypatch.setattr(arithmetic, "SECONDS", 0.01)
    right = Conv3d.forward

    def wrong(self, x):
        out = right(self, x)
        return out * 1.1 if torch.is_autocast_enabled("cpu") else out

    monkeypatch.setattr(Conv3d, "forward", wrong)
    found = {finding.check: finding for finding in arithmetic.check_convolutions()}
    assert found["fp32"].state == "ok" and found["bf16"].state == found["fp16"].state == "broken"
    assert "do not train in bf16 here" in found["bf16"].advice


def test_a_controller_that_does_not_answer_is_broken(tmp_path, monkeypatch):
    for name in ("squeue", "sinfo", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'slurm 22.05.8'\necho 'connection refused' >&2\n"
                                     f"exit {int(name == 'scontrol')}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = {finding.check: finding for finding in slurm.check_slurm()}
    assert list(found) == ["controller"] and found["controller"].state == "broken"
    assert found["controller"].found == "connection refused"


def test_storage_is_tried_and_left_as_it_was(tmp_path):
    found = list(check_storage([tmp_path / "data"]))
    assert {finding.state for finding in found} <= {"ok", "warning"}
    assert any("a second writer is refused" in finding.found for finding in found) and not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_write_speed", full)
    finding = next(check_storage([tmp_path]))
    assert finding.state == "broken" and "No space left on device; make room" in finding.found


def test_a_long_name_of_a_folder_leaves_room_for_what_was_found():
    text = format_findings([Finding("storage", "/scratch/" + 12 * "long-name/", "ok", "word " * 30)])
    assert text.count("word") == 30


def test_long_findings_are_wrapped_under_their_column():
    text = format_findings([Finding("A", "b", "warning", "word " * 40, "do this")])
    lines = text.splitlines()
    assert all(len(line) <= 110 for line in lines) and lines[-3].strip() == "-> do this"
