"""Mutated videos, fields and images through preprocessing and upscaling: status 0 or 2, nothing half-written."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from campaign import LOST, Kind, Result, verdict
from sandbox import call, files_below, run, silent
from world import World, write_clip, write_field

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = [ROOT / "preprocess" / "sample" / name for name in ("diamond.mp4", "diamond_lr.mkv")]
FORMATS = (
    ("mp4", "libx264", "yuv420p"),
    ("mpg", "mpeg2video", "yuv420p"),
    ("avi", "mjpeg", "yuvj420p"),
    ("mkv", "ffv1", "yuv444p"),
    ("mov", "prores_ks", "yuv422p10le"),
    ("mkv", "libx265", "yuv420p10le"),
)
LARGEST = 2_000_000  # bytes; larger files are cut
SECONDS = 300.0  # a frame of a large video of your own takes a minute on a busy core
_own: list[Path] = []
_own_variables: dict[Path, str] = {}


def add_own(folder: Path) -> None:
    """Mutate the files of that folder as well."""
    from hpc_vsr.sources.field import list_variables

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
    made = [
        _made_once(
            world.folder / "pool" / f"{codec}.{suffix}",
            lambda path, codec=codec, pixel=pixel: write_clip(path, 16, codec, pixel_format=pixel),
        )
        for suffix, codec, pixel in FORMATS
    ]
    return [*made, *SAMPLES]


def _video(world: World, rng: random.Random, folder: Path) -> Result:
    source = _choose(_pool_of_videos(world), (".mp4", ".mkv", ".mpg", ".avi", ".mov", ".webm"), rng)
    path = folder / f"bad{source.suffix}"
    path.write_bytes(mutate(source.read_bytes()[:LARGEST], rng))
    return _both_stages(
        "mutated videos",
        world,
        folder,
        ["--video", path],
        [
            "--run",
            world.runs / "tiny",
            "--input",
            path,
            "--output",
            folder / "out.mkv",
            "--stop",
            1 if source in _own else 4,
        ],
        folder / "out.mkv",
        source,
    )


def _field(world: World, rng: random.Random, folder: Path) -> Result:
    kinds = ("NETCDF3_CLASSIC", "NETCDF4")
    made = [
        _made_once(world.folder / "pool" / f"{kind}.nc", lambda path, kind=kind: write_field(path, 12, kind, (16, 20)))
        for kind in kinds
    ]
    source = _choose([*made, world.field], (".nc",), rng)
    path = folder / "bad.nc"
    path.write_bytes(mutate(source.read_bytes()[: 10 * LARGEST], rng))
    variable = _own_variables.get(source, "speed")
    return _both_stages(
        "mutated NetCDF files",
        world,
        folder,
        ["--field", path, "--variable", variable],
        [
            "--run",
            world.runs / "field",
            "--input",
            path,
            "--variable",
            variable,
            "--output",
            folder / "out.nc",
            "--stop",
            3,
        ],
        folder / "out.nc",
        source,
    )


def _both_stages(
    kind: str, world: World, folder: Path, preprocess: list, upscale: list, output: Path, source: Path
) -> Result:
    made = run("preprocess", [*preprocess, "--shards", 3, "--out", folder / "data"], folder, limit=SECONDS)
    enlarged = run("upscale", [*upscale, "--tile", 64], folder, limit=SECONDS)
    for stage, done, product in (("preprocess", made, folder / "data" / "dataset.json"), ("upscale", enlarged, output)):
        if done.status not in (0, 2):
            return Result(kind, LOST, f"{stage}, {source.name}: status {done.status}: {done.last_line()}")
        if (done.status == 0) != product.exists():
            return Result(
                kind,
                LOST,
                f"{stage}, {source.name}: status {done.status}, and {product.name} "
                f"{'is there' if product.exists() else 'is not'}",
            )
    half = [name for name in files_below(folder) if name.endswith(".partial")]
    return verdict(
        kind, [made, enlarged], f"half-written: {half}" if half else None, made.status == 2 or enlarged.status == 2
    )


def _images(world: World, rng: random.Random, folder: Path) -> Result:
    """A folder of images of which one is damaged; those before it are enlarged and stay, each whole."""
    kind = "mutated images"
    pool = world.folder / "pool" / "images"

    def write(partial: Path) -> None:
        def images() -> None:
            import cv2

            from hpc_vsr.sources.video import open_video

            partial.mkdir()
            for index, (frame, _) in enumerate(open_video(world.clip, "rgb").read(0, 12)):
                cv2.imwrite(str(partial / f"{index}.{('png', 'tif')[index % 2]}"), frame.transpose(1, 2, 0))

        call(images, world.folder)

    shutil.copytree(_made_once(pool, write), folder / "in")
    victim = rng.choice(sorted((folder / "in").iterdir()))
    victim.write_bytes(mutate(victim.read_bytes(), rng))
    return _both_stages(
        kind,
        world,
        folder,
        ["--frames", folder / "in"],
        [
            "--run",
            world.runs / "tiny",
            "--input",
            folder / "in",
            "--output",
            folder / "out",
            "--stop",
            4,
            "--find_cuts",
            "false",
        ],
        folder / "out" / "3.tif",
        victim,
    )


KINDS = [Kind("mutated videos", _video, 3), Kind("mutated NetCDF files", _field, 2), Kind("mutated images", _images, 1)]
