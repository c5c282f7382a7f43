"""Shards that lead elsewhere or unpack without end, and playlists named as videos."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from faults import Kind
from hostile import case, refused
from parsers import reseal_shards
from sandbox import call, run
from trainings import TINY
from world import World

KINDS: list[Kind] = []


def _shard(world: World, folder: Path, change: Callable[[h5py.File], None]) -> str:
    """A shard that was changed, confirmed by its manifest, in training and in preprocessing."""
    data = folder / "data"
    shutil.copytree(world.data, data)
    path = sorted(data.glob("train-*.h5"))[0]

    def write() -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    call(write, folder)
    reseal_shards(data)
    done = run("train", ["--data", data, "--out", folder / "run", *TINY], folder, limit=240)
    made = run("preprocess", ["--video", world.clip, "--shards", 5, "--out", data], folder)
    if made.status != 0 or path.read_bytes() != (world.data / path.name).read_bytes():
        return f"preprocessing kept it: {made.status}: {made.last_line()}"
    return refused(done, path.name)


def _outside(folder: Path, values: np.ndarray) -> Path:
    path = folder / "outside.h5"
    with h5py.File(path, "w") as file:
        file["x"] = values
    return path


@case(KINDS, "a shard whose frames are a link into another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        other = _outside(folder, file["frames/lr"][:])
        del file["frames/lr"]
        file["frames/lr"] = h5py.ExternalLink(str(other), "/x")

    return _shard(world, folder, change)


@case(KINDS, "a shard whose group of frames is a link into another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        with h5py.File(folder / "outside.h5", "w") as other:
            file.copy("frames", other)
        del file["frames"]
        file["frames"] = h5py.ExternalLink(str(folder / "outside.h5"), "/frames")

    return _shard(world, folder, change)


@case(KINDS, "a shard whose frames are a view of another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        values = file["frames/hr"][:]
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(_outside(folder, values)), "x", values.shape)
        del file["frames/hr"]
        file.create_virtual_dataset("frames/hr", layout)

    return _shard(world, folder, change)


@case(KINDS, "a shard whose bytes lie in /etc/passwd")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        shape, dtype = file["frames/lr"].shape, file["frames/lr"].dtype
        del file["frames/lr"]
        file.create_dataset("frames/lr", shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])

    return _shard(world, folder, change)


@case(KINDS, "a shard that unpacks to terabytes")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        del file["frames/hr"]
        file.create_dataset("frames/hr", (10**6, 1, 1000, 1000), "u1", chunks=(1, 1, 1000, 1000),
                            compression="gzip")[0] = 7

    return _shard(world, folder, change)


@case(KINDS, "a shard with a soft link to itself")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        del file["frames/lr"]
        file["frames/lr"] = h5py.SoftLink("/frames/lr")

    return _shard(world, folder, change)


for _suffix, _text in (
    (".mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"),
    (".mkv", "ffconcat version 1.0\nfile {other}\n"),
    (
        ".mpd",
        "<MPD><Period><AdaptationSet><Representation><BaseURL>{other}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
    ),
    (".sdp", "v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n"),
):

    @case(KINDS, f"a playlist named in{_suffix}")
    def _(world: World, folder: Path, suffix: str = _suffix, text: str = _text) -> str:
        shutil.copy(world.clip, folder / "other.mp4")
        path = folder / f"in{suffix}"
        path.write_text(text.format(other="other.mp4"))
        return refused(run("preprocess", ["--video", path, "--out", folder / "d"], folder), path.name)
