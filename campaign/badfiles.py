"""Mutated videos, fields and images through preprocessing and upscaling: status 0 or 2, nothing half-written."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
from faults import LOST, SURVIVED, Kind, Result, verdict
from inputs import write_field, write_images
from patterns import moving_pattern
from repository import ROOT
from sandbox import Outcome, call, files_below, run, silent
from videos import write_video
from world import World

from hpc_vsr.data.manifest import check_shards, read_manifest
from hpc_vsr.data.samples import Split

SAMPLES = [ROOT / "preprocess" / "sample" / name for name in ("diamond.mp4", "diamond_lr.mkv")]
FORMATS = (("mp4", "libx264", "yuv420p"), ("mpg", "mpeg2video", "yuv420p"), ("avi", "mjpeg", "yuvj420p"),
           ("mkv", "ffv1", "yuv444p"), ("mov", "prores_ks", "yuv422p10le"), ("mkv", "libx265", "yuv420p10le"))
LARGEST = 2_000_000  # bytes; larger files are cut
SECONDS = 300.0  # a frame of a large video of your own takes a minute on a busy core
_own: list[Path] = []
_own_variables: dict[Path, str] = {}


def add_own(folder: Path) -> None:
    """Mutate the files of that folder as well."""
    from hpc_vsr.media.field_source import list_variables

    _own.extend(sorted(path for path in folder.iterdir() if path.is_file()))
    for path in _own:
        if path.suffix == ".nc":  # looked at in a process of its own, for netCDF4 has threads
            told = call(lambda path=path: print(list_variables(path)[0]), Path(tempfile.gettempdir()))
            _own_variables[path] = told.text.strip()


def _choose(pool: list[Path], suffixes: tuple[str, ...], rng: random.Random) -> Path:
    """A user's own file every fourth time, if there are any."""
    own = [path for path in _own if path.suffix in suffixes]
    return rng.choice(own) if own and rng.random() < 0.25 else rng.choice(pool)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: bits, bytes, blocks, numbers that matter to a header, the length."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = min(len(data) - 1, int(rng.expovariate(1 / 400)) if rng.random() < 0.5 else rng.randrange(len(data)))
        what = rng.randrange(9)
        length = rng.choice((1, 2, 4, 8, 64, 1024))
        if what == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[place : place + length] = rng.randbytes(length)
        elif what == 2:
            data[place : place + length] = bytes(length)
        elif what == 3:
            data[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1"))
        elif what == 4:
            del data[place : place + length]
        elif what == 5:
            data[place:place] = rng.randbytes(length)
        elif what == 6:
            del data[max(16, place) :]
        elif what == 7:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + length]
        else:
            for _ in range(20):
                data[rng.randrange(len(data))] = rng.randrange(256)
        data = data or bytearray(b"\0")
    return bytes(data)


def _made_once(path: Path, make: Callable[[Path], None]) -> Path:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{random.SystemRandom().getrandbits(40):x}-{path.name}")
        with silent():
            make(partial)
        partial.replace(path)
    return path


def _pool_of_videos(world: World) -> list[Path]:
    made = [_made_once(world.folder / "pool" / f"{codec}.{suffix}",
                       lambda path, codec=codec, pixel=pixel: write_video(path, moving_pattern(24, 48, 64), codec,
                                                                          pixel, gop=8))
            for suffix, codec, pixel in FORMATS]
    return [*made, *SAMPLES, *SAMPLES]


def _video(world: World, rng: random.Random, folder: Path) -> Result:
    source = _choose(_pool_of_videos(world), (".mp4", ".mkv", ".mpg", ".avi", ".mov", ".webm"), rng)
    return _try_video("mutated videos", world, folder, source, mutate(source.read_bytes()[:LARGEST], rng))


def _try_video(kind: str, world: World, folder: Path, source: Path, content: bytes) -> Result:
    path, output = folder / f"bad{source.suffix}", folder / "out.mkv"
    path.write_bytes(content)
    return _both_stages(
        kind, world, folder, ["--video", path],
        ["--run", world.runs / "tiny", "--input", path, "--output", output, "--stop", 1 if source in _own else 4],
        output, source,
    )


def _pool_of_fields(world: World) -> list[Path]:
    made = [_made_once(world.folder / "pool" / f"{kind}.nc",
                       lambda path, kind=kind: write_field(path, 24, kind, (16, 20)))
            for kind in ("NETCDF3_CLASSIC", "NETCDF4")]
    return [*made, world.field]


def _field(world: World, rng: random.Random, folder: Path) -> Result:
    source = _choose(_pool_of_fields(world), (".nc",), rng)
    return _try_field("mutated NetCDF files", world, folder, source, mutate(source.read_bytes()[: 10 * LARGEST], rng))


def _try_field(kind: str, world: World, folder: Path, source: Path, content: bytes) -> Result:
    path, output = folder / "bad.nc", folder / "out.nc"
    path.write_bytes(content)
    variable = _own_variables.get(source, "speed")
    return _both_stages(
        kind, world, folder, ["--field", path, "--variable", variable, "--degradation.sigma", 1],
        ["--run", world.runs / "field", "--input", path, "--variable", variable, "--output", output, "--stop", 3],
        output, source,
    )


def _both_stages(kind: str, world: World, folder: Path, preprocess: list, upscale: list, output: Path,
                 source: Path) -> Result:
    """Status 0 and a whole product, or status 2 and one line; then whole parts may be there, for the next try."""
    made = run("preprocess", [*preprocess, "--shards", 3, "--out", folder / "data"], folder, limit=SECONDS)
    if fault := _fault(made, folder, folder / "data" / "dataset.json", lambda: _read_data(folder / "data")):
        return Result(kind, LOST, f"preprocess, {source.name}: {fault}")
    shutil.rmtree(folder / "data", ignore_errors=True)
    enlarged = run("upscale", [*upscale, "--tile", 64], folder, limit=SECONDS)
    if fault := _fault(enlarged, folder, output, lambda: _read_product(output)):
        return Result(kind, LOST, f"upscale, {source.name}: {fault}")
    return verdict(kind, [made, enlarged], None, made.status == 2 or enlarged.status == 2)


def _fault(done: Outcome, folder: Path, product: Path, read: Callable[[], None]) -> str | None:
    if done.status not in (0, 2):
        return f"status {done.status}: {done.last_line()}"
    if left := [name for name in files_below(folder) if name.endswith((".partial", "lock"))]:
        return f"half-written: {left[:3]}"
    if done.status == 2:
        if product.is_file():
            return f"refused, and {product.name} is there"
        return None if "error: " in done.text else "refused without a reason"
    whole = call(read, folder)
    return None if whole.status == 0 else f"its product cannot be read: {whole.last_line()}"


def _read_data(data: Path) -> None:
    manifest = read_manifest(data)
    check_shards(manifest, set(manifest.info.splits))
    for split in manifest.info.splits:
        frames = Split(manifest, split)
        for index in range(frames.start, frames.stop):
            frames.hr_frame(index)


def _read_product(path: Path) -> None:
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path) as dataset:
            dataset.load()
    elif path.is_dir():
        assert all(cv2.imread(str(image)) is not None for image in path.iterdir() if image.suffix in (".png", ".tif"))
    else:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def _images(world: World, rng: random.Random, folder: Path) -> Result:
    """A folder of images of which one is damaged; those before it are enlarged and stay, each whole."""
    return _try_images("mutated images", world, folder, rng)


def _try_images(kind: str, world: World, folder: Path, rng: random.Random | None) -> Result:
    pool = _made_once(world.folder / "pool" / "images", lambda path: write_images(path, world.clip, 24))
    shutil.copytree(pool, folder / "in")
    victim = folder / "in" / "0.png"
    if rng is not None:
        victim = rng.choice(sorted((folder / "in").iterdir()))
        victim.write_bytes(mutate(victim.read_bytes(), rng))
    return _both_stages(
        kind, world, folder, ["--frames", folder / "in"],
        ["--run", world.runs / "tiny", "--input", folder / "in", "--output", folder / "out", "--find_cuts", "false"],
        folder / "out", victim,
    )


def _unharmed(world: World, rng: random.Random, folder: Path) -> Result:
    """Each file as it is passes both stages; if it did not, to refuse its mutations would be no merit."""
    kind = "the same files, not mutated"
    tries = [
        *(lambda place, path=path: _try_video(kind, world, place, path, path.read_bytes())
          for path in dict.fromkeys(_pool_of_videos(world))),
        *(lambda place, path=path: _try_field(kind, world, place, path, path.read_bytes())
          for path in _pool_of_fields(world)),
        lambda place: _try_images(kind, world, place, None),
    ]
    for number, try_file in enumerate(tries):
        (folder / str(number)).mkdir()
        result = try_file(folder / str(number))
        if result.outcome != SURVIVED:
            return Result(kind, LOST, f"refused as it is: {number} {result.note}")
    return Result(kind, SURVIVED)


KINDS = [
    Kind("mutated videos", _video, 6),
    Kind("mutated NetCDF files", _field, 4),
    Kind("mutated images", _images, 2),
    Kind("the same files, not mutated", _unharmed, 0),
]
