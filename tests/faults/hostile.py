"""Files from strangers: no code of theirs runs, no file outside is touched, memory stays bounded."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from campaign import LOST, REFUSED, SURVIVED, Kind, Result
from parsers import reseal_shards, write_anything
from sandbox import Outcome, call, run
from world import TINY, World

from hpc_vsr.files import record_checksum

MARKUP = "<img src=x onerror=alert(1)>"
METACHARACTERS = "a b$(touch pwned);`touch pwned`'&&touch pwned|touch pwned"


class Payload:
    """What a pickle may hold: a call."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def case(name: str) -> Callable:
    """Make a kind of one trial of a function of (world, folder) that returns None, 'refused' or what was lost."""

    def register(function: Callable[[World, Path], str | None]) -> Callable:
        def try_one(world: World, rng: random.Random, folder: Path) -> Result:
            found = function(world, folder)
            if any(path.name == "pwned" for path in folder.rglob("*")):
                found = "a payload was run"
            return Result("hostile files", {None: SURVIVED, REFUSED: REFUSED}.get(found, LOST), f"{name}: {found}")

        KINDS.append(Kind(name, try_one))
        return function

    return register


KINDS: list[Kind] = []


def _refused(done: Outcome, *words: str) -> str:
    if done.status != 2 or not done.is_tidy:
        return f"status {done.status}: {done.last_line()}"
    missing = [word for word in words if word not in done.text]
    return f"does not say {missing}: {done.last_line()}" if missing else REFUSED


def _run_copy(world: World, folder: Path) -> tuple[Path, Path]:
    """A run, and the checkpoint that will be looked at first."""
    out = folder / "run"
    shutil.copytree(world.runs / "unmeasured", out)
    (out / "checkpoints" / "best.json").unlink()
    return out, max((out / "checkpoints").glob("step-*.pt"))


@case("a checkpoint whose pickle calls a program")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    torch.save({"weights": Payload(folder / "pwned")}, path)
    record_checksum(path)
    return _refused(run("evaluate", ["--run", out], folder), str(path))


@case("a plain pickle named as a checkpoint")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    path.write_bytes(pickle.dumps(Payload(folder / "pwned")))
    record_checksum(path)
    return _refused(
        run("upscale", ["--run", out, "--input", world.clip, "--output", folder / "o.mp4"], folder), str(path)
    )


@case("a training resumed from a pickle that calls a program")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    torch.save({"optimiser": Payload(folder / "pwned")}, path)
    record_checksum(path)
    return _refused(run("train", ["--data", world.data, "--out", out, *TINY], folder), str(path))


@case("published weights that call a program")
def _(world: World, folder: Path) -> str:
    from hpc_vsr import import_weights

    torch.save({"conv.weight": Payload(folder / "pwned")}, folder / "w.pth")
    return _refused(
        call(lambda: import_weights.main([str(folder / "w.pth"), "--out", str(folder / "r")]), folder), "w.pth"
    )


@case("a checkpoint that unpacks to 20 GB")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        largest = max(source.infolist(), key=lambda entry: entry.file_size).filename
        for entry in source.infolist():
            with bomb.open(entry.filename, "w", force_zip64=True) as stream:
                if entry.filename != largest:
                    stream.write(source.read(entry))
                else:
                    for _ in range(20):
                        stream.write(bytes(1 << 20))
    shutil.move(folder / "bomb.pt", path)
    record_checksum(path)
    return _refused(run("evaluate", ["--run", out], folder), str(path))


@case("a checkpoint of another network with a huge tensor of stride 0")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    state = torch.load(path, weights_only=True)
    name = next(iter(state["weights"]))
    state["weights"][name] = torch.zeros(1).expand(200_000, 200_000)
    torch.save(state, path)
    record_checksum(path)
    return _refused(run("evaluate", ["--run", out], folder), str(path), name)


@case("a best.json that names a file outside")
def _(world: World, folder: Path) -> str | None:
    out, path = _run_copy(world, folder)
    torch.save({"weights": Payload(folder / "pwned")}, folder / "step-00000099.pt")
    record_checksum(folder / "step-00000099.pt")
    write_anything(out / "checkpoints" / "best.json", {"file": "../../step-00000099.pt", "step": 99, "psnr": 99.0})
    done = run("evaluate", ["--run", out], folder)
    return None if done.status == 0 else f"status {done.status}: {done.last_line()}"


def _manifest(world: World, folder: Path, change: Callable[[dict], None]) -> Outcome:
    data = folder / "data"
    shutil.copytree(world.data, data)
    content = json.loads((data / "dataset.json").read_text())
    del content["content_sha256"]
    change(content)
    write_anything(data / "dataset.json", content)
    return run("train", ["--data", data, "--out", folder / "run", *TINY], folder, limit=60)


for _name in ("../../secret.h5", "/etc/passwd", "train-00000-of-00003.h5/../../x.h5", "train-00000-of-00003.h5\0"):

    @case(f"a manifest with a shard {_name!r}")
    def _(world: World, folder: Path, name: str = _name) -> str:
        return _refused(
            _manifest(world, folder, lambda content: content["shards"][0].update(name=name)), "dataset.json"
        )


for _size in ([10**9, 10**9], [2**63, 2], [48.5, 64], ["48", "64"], [-48, -64]):

    @case(f"a manifest with frames of {_size}")
    def _(world: World, folder: Path, size: list = _size) -> str:
        def change(content: dict) -> None:
            content["hr_size"] = size
            content["lr_size"] = [side // 2 if isinstance(side, int) else side for side in size]

        return _refused(_manifest(world, folder, change), "dataset.json")


@case("a manifest nested 100,000 deep")
def _(world: World, folder: Path) -> str:
    data = folder / "data"
    shutil.copytree(world.data, data)
    (data / "dataset.json").write_text("[" * 100_000 + "]" * 100_000)
    return _refused(run("train", ["--data", data, "--out", folder / "run", *TINY], folder), "dataset.json")


@case("a manifest that declares 10^12 frames")
def _(world: World, folder: Path) -> str:
    def change(content: dict) -> None:
        content["splits"]["train"] = [0, 10**12]
        content["shards"][0].update(frames=10**12, samples=10**12 - 4)

    return _refused(_manifest(world, folder, change), "dataset.json")


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
    done = run("train", ["--data", data, "--out", folder / "run", *TINY], folder, limit=60)
    made = run("preprocess", ["--video", world.clip, "--shards", 5, "--out", data], folder)
    if made.status != 0 or path.read_bytes() != (world.data / path.name).read_bytes():
        return f"preprocessing kept it: {made.status}: {made.last_line()}"
    return _refused(done, path.name)


def _outside(folder: Path, values: np.ndarray) -> Path:
    path = folder / "outside.h5"
    with h5py.File(path, "w") as file:
        file["x"] = values
    return path


@case("a shard whose frames are a link into another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        other = _outside(folder, file["frames/lr"][:])
        del file["frames/lr"]
        file["frames/lr"] = h5py.ExternalLink(str(other), "/x")

    return _shard(world, folder, change)


@case("a shard whose group of frames is a link into another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        with h5py.File(folder / "outside.h5", "w") as other:
            file.copy("frames", other)
        del file["frames"]
        file["frames"] = h5py.ExternalLink(str(folder / "outside.h5"), "/frames")

    return _shard(world, folder, change)


@case("a shard whose frames are a view of another file")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        values = file["frames/hr"][:]
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(_outside(folder, values)), "x", values.shape)
        del file["frames/hr"]
        file.create_virtual_dataset("frames/hr", layout)

    return _shard(world, folder, change)


@case("a shard whose bytes lie in /etc/passwd")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        shape, dtype = file["frames/lr"].shape, file["frames/lr"].dtype
        del file["frames/lr"]
        file.create_dataset("frames/lr", shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])

    return _shard(world, folder, change)


@case("a shard that unpacks to terabytes")
def _(world: World, folder: Path) -> str:
    def change(file: h5py.File) -> None:
        del file["frames/hr"]
        file.create_dataset("frames/hr", (10**6, 1, 1000, 1000), "u1", chunks=(1, 1, 1000, 1000), compression="gzip")[
            0
        ] = 7

    return _shard(world, folder, change)


@case("a shard with a soft link to itself")
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

    @case(f"a playlist named in{_suffix}")
    def _(world: World, folder: Path, suffix: str = _suffix, text: str = _text) -> str:
        shutil.copy(world.clip, folder / "other.mp4")
        path = folder / f"in{suffix}"
        path.write_text(text.format(other="other.mp4"))
        return _refused(run("preprocess", ["--video", path, "--out", folder / "d"], folder), path.name)


@case("names with markup reach the report's page as text")
def _(world: World, folder: Path) -> str | None:
    out = folder / f"r{MARKUP.replace('/', '')}"
    shutil.copytree(world.runs / "unmeasured", out)
    done = [run("evaluate", ["--run", out], folder), run("report", [out, "--out", folder / "report"], folder)]
    page = (folder / "report" / "index.html").read_text()
    return None if done[1].status == 0 and "<img src=x" not in page and "&lt;img" in page else "markup in the page"


@case("units and names with markup in a field reach the report's page as text")
def _(world: World, folder: Path) -> str | None:
    def write() -> None:
        import xarray as xr

        with xr.open_dataset(world.field) as dataset:
            dataset["speed"].attrs["units"] = MARKUP
            dataset["speed"].attrs["long_name"] = "</script><script>alert(1)</script>"
            dataset.load().to_netcdf(folder / "f.nc")

    call(write, folder)
    for stage, arguments in (
        (
            "preprocess",
            [
                "--field",
                folder / "f.nc",
                "--variable",
                "speed",
                "--out",
                folder / "d",
                "--shards",
                3,
                "--degradation.sigma",
                1,
            ],
        ),
        ("train", ["--data", folder / "d", "--out", folder / "run", *TINY]),
        ("evaluate", ["--run", folder / "run"]),
        ("report", [folder / "run", "--out", folder / "report"]),
    ):
        done = run(stage, arguments, folder)
        if done.status != 0:
            return f"{stage}: {done.status}: {done.last_line()}"
    page = (folder / "report" / "index.html").read_text()
    return None if "<img src=x" not in page and "<script>alert" not in page else "markup in the page"


@case("shell metacharacters in paths that reach sbatch")
def _(world: World, folder: Path) -> str | None:
    """The scripts that `launch` would submit are run with stand-ins for srun and python that only note their words."""
    stand_ins = folder / "bin"
    stand_ins.mkdir()
    for name in ("srun", "python", "scontrol", "mpiexec"):
        program = stand_ins / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{folder}/words"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    data = folder / METACHARACTERS
    shutil.copytree(world.data, data)
    job = folder / "job.toml"
    job.write_text("[train]\nsteps = 2\nbatch_size = 2\npatch_size = 12\n")
    done = run(
        "launch",
        ["--config", job, "--data", data, "--out", folder / f"o {METACHARACTERS}", "--cluster", "slurm", "--dry-run"],
        folder,
    )
    if done.status not in (0, 2):
        return f"status {done.status}: {done.last_line()}"
    scripts = [f"#!/bin/bash{part}" for part in done.text.split("#!/bin/bash")[1:]]
    for number, script in enumerate(scripts):
        path = folder / f"script{number}.sh"
        path.write_text(script)
        subprocess.run(
            ["bash", str(path)],
            cwd=folder,
            env={"PATH": f"{stand_ins}:/usr/bin:/bin"},
            capture_output=True,
            timeout=60,
            check=False,
        )
    return REFUSED if done.status == 2 else None if scripts else "no scripts"


@case("a site file with metacharacters in its names")
def _(world: World, folder: Path) -> str | None:
    (folder / "site.toml").write_text(
        '[gpu]\npartition = "x; touch pwned; $(touch pwned)"\naccount = "`touch pwned`"\n'
    )
    from hpc_vsr import site

    done = call(lambda: site.main(["--site", str(folder / "site.toml"), "--project", "$(touch pwned)"]), folder)
    if done.status == 2:
        return REFUSED
    subprocess.run(
        ["bash", "-c", f"eval {json.dumps(done.text)}; echo $HPC_VSR_GPU"], cwd=folder, capture_output=True, check=False
    )
    subprocess.run(["bash", "-c", done.text], cwd=folder, capture_output=True, check=False)
    return None


ABSURD = {
    "a million layers": "[model]\nn_3d = 1000000\n",
    "10^18 shards": None,
    "10^9 loaders": "[train]\nnum_workers = 1000000000\n",
    "a batch of 10^12": "[train]\nbatch_size = 1000000000000\n",
    "patches of 10^9": "[train]\npatch_size = 1000000000\n",
    "a sweep of 10^10 points": "[sweep]\n"
    + "\n".join(
        f'"train.{name}" = [{", ".join(map(str, range(1, 101)))}]'
        for name in ("steps", "seed", "log_every", "checkpoint_every", "keep_checkpoints")
    ),
    "10^9 nodes": "[resources]\nnodes = 1000000000\n",
    "recursion 10^9": "[model]\nnum_recursive_blocks = 1000000000\n",
    "10^15 hours": "[resources]\nhours = 1e15\n",
    "a depth of brackets": "x = " + "[" * 50_000 + "]" * 50_000 + "\n",
    "nested tables": "\n".join(f"[{'.'.join('a' * (depth + 1))}]" for depth in range(2000)),
}
for _name, _text in ABSURD.items():

    @case(f"TOML: {_name}")
    def _(world: World, folder: Path, name: str = _name, text: str | None = _text) -> str | None:
        (folder / "job.toml").write_text(text or "")
        if text is None:
            done = run(
                "preprocess", ["--video", world.clip, "--shards", 10**18, "--out", folder / "d"], folder, limit=60
            )
        else:
            done = run(
                "launch",
                ["--config", folder / "job.toml", "--data", world.data, "--cluster", "slurm", "--dry-run"],
                folder,
                limit=60,
            )
        if done.status == 0 and done.is_tidy:
            return None
        return _refused(done)


@case("an archive of pictures that unpacks to 30 GB")
def _(world: World, folder: Path) -> str | None:
    out = folder / "tiny"
    shutil.copytree(world.runs / "tiny", out)

    def write() -> None:
        path = out / "pictures-test.npz"
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    if name == "hr":
                        np.lib.format.write_array_header_1_0(
                            stream, {"descr": "<f4", "fortran_order": False, "shape": (30000, 1, 500, 500)}
                        )
                        for _ in range(300):
                            stream.write(bytes(1 << 20))
                    else:
                        np.lib.format.write_array(stream, array)

    call(write, folder)
    done = run("report", [out, "--out", folder / "report"], folder)
    return None if done.status == 0 and done.is_tidy else f"status {done.status}: {done.last_line()}"


@case("a path with spaces, quotes and Unicode through every stage")
def _(world: World, folder: Path) -> str | None:
    place = folder / "日本語 übung \"q\" 'r' %s {x} \\n"
    for stage in world.stages.values():
        done = stage.run(place / stage.name)
        if done.status != 0 or (faults := stage.faults_of(place / stage.name)):
            return f"{stage.name}: {done.status}: {done.last_line()} {faults if done.status == 0 else ''}"
    return None
