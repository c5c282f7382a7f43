"""Files of weights that others published: what is none is named, and the authors' files have their own range."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from stages import assert_refused, run_stage

from hpc_vsr.evaluation import weight_files
from hpc_vsr.evaluation.published import UNUSED, import_weights, published_names
from hpc_vsr.evaluation.weight_files import output_range, read_state_dict
from hpc_vsr.models.parallel5 import Parallel5
from hpc_vsr.runs.trained import load_trained
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import sha256

PUBLISHED = "dac69b9d9612ceeb899d17527ebd784662224e391db327713126c156877e8026"
EARLIER = "cafd5529" + 56 * "0"


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.fixture
def weights(tmp_path):
    """A file with the authors' names."""
    own = Parallel5().state_dict()
    named = {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for ours, theirs in published_names().items()
             for kind in ("weight", "bias")}
    unused = {f"{name}.{kind}": torch.zeros(1) for name in UNUSED for kind in ("weight", "bias")}
    torch.save({**named, **unused}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.parametrize("checksum, given, limits, words", [
    (PUBLISHED, None, (0, 255), "output range [0,255]: the file is known by its SHA-256"),
    (EARLIER, None, (16, 234), "output range [16,234]: the file is known by the first 8 digits of its SHA-256, "
                               "cafd5529"),
    (64 * "1", None, (0, 255), "output range [0,255] is assumed: this is none of the authors' files"),
    (64 * "1", (16, 234), (16, 234), "output range [16,234], as given"),
    (EARLIER, (0, 255), (0, 255), "warning: output range [0,255], as given, but the SHA-256 is that of the authors' "
                                  "file with [16,234]"),
    (PUBLISHED, (0, 255), (0, 255), "output range [0,255]: the file is known"),
])
def test_the_authors_files_have_their_own_output_range(checksum, given, limits, words):
    found, told = output_range(checksum, given)
    assert found == limits and told.startswith(words)


def test_an_imported_network_keeps_to_the_range_of_its_file(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(weight_files.RANGES, sha256(weights)[:8], (16.0, 234.0))
    run, told = import_weights(weights, tmp_path / "run", None, None)
    limit = load_trained(run).network.limit
    assert "[16,234]" in told
    assert limit(torch.tensor([-1e6, 0.0, 1e6])).tolist() == [16, 125, 234]


def test_the_range_of_a_file_is_told_and_its_form_is_in_every_message(weights, tmp_path):
    done = run_stage("import_weights", weights, "--out", tmp_path / "run")
    assert done.returncode == 0 and "output range [0,255] is assumed" in done.stdout, done.stderr
    assert "--output-range [LOW,HIGH]" in done.stdout and "[16,234]" in done.stdout
    assert "--output-range [LOW,HIGH]" in run_stage("import_weights", "--help").stdout
    wrong = run_stage("import_weights", weights, "--out", tmp_path / "other", "--output_range", "16,234")
    assert_refused(wrong, "--output_range: expected [LOW,HIGH], in brackets", "found 16,234")
    wrong = run_stage("import_weights", weights, "--out", tmp_path / "other", "--output-range", "[234,16]")
    assert_refused(wrong, "a lowest and a highest value")


def content_of(kind):
    stream = io.BytesIO()
    match kind:
        case "numpy":
            np.savez(stream, a=np.zeros(3))
        case "array":
            np.save(stream, np.zeros(3))
        case "script":
            with zipfile.ZipFile(stream, "w") as archive:
                for name in ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/version"):
                    archive.writestr(name, "3")
        case "cut":
            torch.save({"a": torch.zeros(1000)}, stream)
            stream.truncate(2000)
        case "code":
            torch.save({"a": Payload()}, stream)
        case "pickle":
            stream.write(pickle.dumps({"a": [1.0]}))
        case "safetensors":
            header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
            stream.write(struct.pack("<Q", len(header)) + header + bytes(4))
    return stream.getvalue()


@pytest.mark.parametrize("content, words", [
    (b"layer,weight\n1,0.5\n", "is text"), (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a PNG image"),
    (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"), (b"\n<!DOCTYPE html><html>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
    (bytes(range(200, 256)), "is of a kind that is not known here"), (b"\x80\x02.", "is a pickle of Python"),
    ("numpy", "is a NumPy archive"), ("array", "is a NumPy array"), ("script", "is a TorchScript program"),
    ("cut", "is damaged or incomplete"), ("pickle", "is a pickle of Python"), ("safetensors", "is a safetensors file"),
    ("code", "it holds exec, which is code that loading would run"),
])
def test_a_file_that_holds_no_weights_is_called_what_it_is(tmp_path, content, words):
    path = tmp_path / "w.pth"
    path.write_bytes(content if isinstance(content, bytes) else content_of(content))
    with pytest.raises(InputError) as refused:
        read_state_dict(path)
    assert words in str(refused.value)
    assert ("would run" in str(refused.value)) == (content == "code")


def test_weights_of_the_form_before_version_16_are_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path / "w.pth")["a"].tolist() == [1, 1]
