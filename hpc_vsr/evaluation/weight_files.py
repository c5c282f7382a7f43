"""Reads a file of weights that others published, and knows those of the paper's authors.

Nothing in such a file is executed.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hpc_vsr.system import files
from hpc_vsr.system.errors import InputError

USUAL_RANGE = (0.0, 255.0)
# The authors' files: how their SHA-256 begins, and the grey levels that the network's last step keeps to. Of the
# earlier file only these eight digits are known here; by chance one file in four billion begins with them.
RANGES = {
    "dac69b9d9612ceeb899d17527ebd784662224e391db327713126c156877e8026": USUAL_RANGE,
    "cafd5529": (16.0, 234.0),
}
# how files of other kinds begin, and what they are
SIGNATURES = [(b"\x89HDF\r\n\x1a\n", "an HDF5 file"), (b"CDF", "a NetCDF file"), (b"\x89PNG", "a PNG image"),
              (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"), (b"%PDF", "a PDF document"),
              (b"\x93NUMPY", "a NumPy array"), (b"\x1f\x8b", "a gzip file, which must be unpacked first"),
              (b"7z\xbc\xaf", "a 7z archive, which must be unpacked first"),
              (b"Rar!", "a RAR archive, which must be unpacked first"), (b"\x1aE\xdf\xa3", "a Matroska video"),
              (b"version https://git-lfs", "a pointer of Git LFS, which 'git lfs pull' replaces by the file")]
WEB_PAGE = (b"<!doctype html", b"<html")
PICKLE = b"\x80"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of PyTorch's form before version 1.6, a pickled number


def output_range(sha256: str, given: Sequence[float] | None) -> tuple[tuple[float, float], str]:
    """Return the output range of an imported file, and a sentence that says where it comes from.

    Parameters
    ----------
    sha256 : str
        Checksum of the file.
    given : (low, high), optional
        What the user asks for, which counts.
    """
    whole = next((known for known in RANGES if sha256.startswith(known)), None)
    known, (low, high) = RANGES.get(whole), given or RANGES.get(whole, USUAL_RANGE)
    said = f"output range [{low:g},{high:g}]"
    another = "--output-range [LOW,HIGH], such as [16,234]"
    if known is None:
        return (low, high), (f"{said}, as given" if given else f"{said} is assumed: this is none of the authors' files "
                             f"that are known here; for another range give {another}")
    if given and tuple(given) != known:
        return (low, high), (f"warning: {said}, as given, but the SHA-256 is that of the authors' file with "
                             f"[{known[0]:g},{known[1]:g}]; without --output-range that one is taken")
    how = "by its SHA-256" if len(whole) == 64 else f"by the first {len(whole)} digits of its SHA-256, {whole}"
    return (low, high), f"{said}: the file is known {how}"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch file by name, on the CPU; no code in the file is run.

    Raises `InputError` if it holds anything else.
    """
    files.check_input_file(path, "a file of PyTorch weights")
    try:
        with warnings.catch_warnings(action="ignore"):  # of other kinds of files; the error below names the kind
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways inside torch
        raise InputError(f"{path}: {_why_unreadable(path, error)}") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        raise InputError(f"{path}: holds no named weights; save the network's state_dict()")
    for name, value in content.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
        if not (plain and value.is_floating_point() and not value.is_quantized and torch.isfinite(value).all()):
            raise InputError(f"{path}: {name} is not a plain tensor of finite floating-point numbers")
    return content


def _why_unreadable(path: Path, error: Exception) -> str:
    """Say what a file is that PyTorch does not load as weights."""
    kind = _kind(path)
    if kind is not None:
        return f"is {kind}, and no file of PyTorch weights; give what torch.save wrote of a network's state_dict()"
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return (f"is not a plain file of weights: it holds {found[1]}, which is code that loading would run, or it is "
                "damaged; save only its state_dict()")
    reason = text.splitlines()[0][:100] if text else type(error).__name__
    return f"is damaged or incomplete ({reason}); copy it again"


def _kind(path: Path) -> str | None:
    """Return what a file is, in words; None if it has the form of a PyTorch file, whole or not."""
    with path.open("rb") as file:
        start = file.read(4096)
    kind = next((kind for signature, kind in SIGNATURES if start.startswith(signature)), None)
    if kind is not None:
        return kind
    if start[:4] == b"PK\x03\x04":
        return _kind_of_archive(path)
    if start.lstrip().lower().startswith(WEB_PAGE):
        return "a web page, such as a server sends instead of the file"
    if start[4:8] == b"ftyp":
        return "a video"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "a safetensors file"
    if start[257:262] == b"ustar":
        return "a tar archive, which must be unpacked first"
    if start.startswith(PICKLE):
        return None if start.startswith(MAGIC) else "a pickle of Python"
    try:
        start[:-3].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return "of a kind that is not known here"
    return "text"


def _kind_of_archive(path: Path) -> str | None:
    """Return what a ZIP file is; None for PyTorch's own, or if it is not whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    if any(name.endswith("constants.pkl") for name in names):
        return "a TorchScript program"
    if any(name.endswith("data.pkl") for name in names):
        return None
    return "a NumPy archive" if any(name.endswith(".npy") for name in names) else "a ZIP archive of other files"
