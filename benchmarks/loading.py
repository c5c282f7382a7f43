"""Compares training samples per second from the shards with other ways of storing the same frames.

    python benchmarks/loading.py
    pip install -e '.[benchmarks]'       for WebDataset and MosaicML streaming; they are left out by name if missing

It also shows how long a training step waits for its batch. A sample is five LR patches and the HR patch of the centre
frame, cut at random from a random window of the training frames, in float32. Every candidate is read once before it is
timed, so all data come from the memory of the operating system: this measures the loaders' own work, not the disk.

  PNG             a file for every LR and HR frame, torch's DataLoader, six pictures read for each sample
  WebDataset      tar files of whole windows, uncompressed arrays, a shuffle buffer
  MosaicML        MDS shards of whole windows, uncompressed arrays
  ours, shards    the frames are read from the shards for each sample
  ours, resident  the training frames stay on the device, as in a training if they fit
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from clips import make_clip  # noqa: E402
from compare import Comparison, build_parser, publish, take_turns  # noqa: E402
from networks import training  # noqa: E402
from torch.utils.data import DataLoader, Dataset, IterableDataset  # noqa: E402

from hpc_vsr.data.build import preprocess  # noqa: E402
from hpc_vsr.data.manifest import read_manifest  # noqa: E402
from hpc_vsr.data.patches import Patches, load_batches  # noqa: E402
from hpc_vsr.data.recipe import Recipe  # noqa: E402
from hpc_vsr.data.samples import Split  # noqa: E402
from hpc_vsr.data.splits import REACH  # noqa: E402
from hpc_vsr.models.build import build_model  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402
from hpc_vsr.models.precision import choose_precision  # noqa: E402
from hpc_vsr.models.settings import ModelSettings  # noqa: E402
from hpc_vsr.system.gpus import choose_device, own_device  # noqa: E402
from hpc_vsr.system.memory import keep_freed_memory  # noqa: E402
from hpc_vsr.system.mpi import connect  # noqa: E402

WORKERS = (0, 2)
SHUFFLE = 64  # windows in a shuffle buffer
STEPS = 100_000  # more than are measured


def cut(lr: np.ndarray, hr: np.ndarray, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a random patch of a (5, h, w) window and of its (2h, 2w) centre frame."""
    top, left = (int(torch.randint(length - side + 1, ())) for length in lr.shape[1:])
    window = torch.from_numpy(np.ascontiguousarray(lr[:, top : top + side, left : left + side]))
    centre = torch.from_numpy(np.ascontiguousarray(
        hr[2 * top + 2 : 2 * (top + side) - 2, 2 * left + 2 : 2 * (left + side) - 2]))
    return window[None].float() / 255, centre[None].float() / 255


class Pictures(Dataset):
    """Windows of frames that are stored as PNG files."""

    def __init__(self, folder: Path, num_frames: int, side: int):
        self.folder, self.num_frames, self.side = folder, num_frames, side

    def __len__(self) -> int:
        return self.num_frames - 2 * REACH

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = np.stack([self._read("lr", index + offset) for offset in range(2 * REACH + 1)])
        return cut(window, self._read("hr", index + REACH), self.side)

    def _read(self, kind: str, index: int) -> np.ndarray:
        return cv2.imread(str(self.folder / kind / f"{index:06d}.png"), cv2.IMREAD_GRAYSCALE)


class Cut(IterableDataset):
    """Endless patches of the windows of another data set."""

    def __init__(self, windows, side: int):
        self.windows, self.side = windows, side

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            for sample in self.windows:
                yield cut(sample["lr.npy"], sample["hr.npy"], self.side)


def forever(loader) -> Iterator:
    while True:
        yield from loader


def pictures(split: Split, folder: Path, arguments, workers: int) -> Iterator:
    num_frames = split.stop - split.start
    if not folder.exists():
        for kind in ("lr", "hr"):
            (folder / kind).mkdir(parents=True)
        for index in range(num_frames):
            for kind, frame in (("lr", split.lr_frames(split.start + index, split.start + index + 1)[0]),
                                ("hr", split.hr_frame(split.start + index))):
                cv2.imwrite(str(folder / kind / f"{index:06d}.png"), frame[0].numpy())
    return forever(DataLoader(Pictures(folder, num_frames, arguments.patch), arguments.batch, shuffle=True,
                              num_workers=workers, persistent_workers=workers > 0, drop_last=True))


def windows(split: Split) -> Iterator[dict[str, np.ndarray]]:
    for centre in split.centres:
        yield {"lr.npy": split.lr_frames(centre - REACH, centre + REACH + 1)[:, 0].numpy(),
               "hr.npy": split.hr_frame(centre)[0].numpy()}


def webdataset(split: Split, folder: Path, arguments, workers: int) -> Iterator:
    import webdataset

    pattern = str(folder / "windows-%06d.tar")
    if not folder.exists():
        folder.mkdir()
        with webdataset.ShardWriter(pattern, maxcount=40, verbose=0) as writer:
            for index, window in enumerate(windows(split)):
                writer.write({"__key__": f"{index:06d}", **window})
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    data = webdataset.WebDataset(tars, resampled=True).shuffle(SHUFFLE).decode()
    return iter(DataLoader(Cut(data, arguments.patch), arguments.batch, num_workers=workers))


def mosaicml(split: Split, folder: Path, arguments, workers: int) -> Iterator:
    import streaming

    if not folder.exists():
        arrays = {name: f"ndarray:uint8:{','.join(map(str, array.shape))}"
                  for name, array in next(windows(split)).items()}
        with streaming.MDSWriter(out=str(folder), columns=arrays, compression=None, hashes=[]) as writer:
            for window in windows(split):
                writer.write(window)
    data = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=arguments.batch)
    return iter(DataLoader(Cut(data, arguments.patch), arguments.batch, num_workers=workers))


def ours(split: Split, arguments, workers: int, device: torch.device) -> Iterator:
    patches = Patches(split, arguments.patch, 0, True, 0)
    return load_batches(patches, 0, STEPS * arguments.batch, arguments.batch, 0, 1, workers, device)


def rate_of_loader(loader: Iterator, batch: int, seconds: float) -> Callable[[], float]:
    """Return a candidate for samples per second; its first batches start workers and are not counted."""
    for _ in range(8):
        next(loader)

    def measure() -> float:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            next(loader)
            count += batch
        return count / (time.perf_counter() - started)
    return measure


def build_network(device: torch.device) -> Network:
    return build_model(ModelSettings(name="delta", skip="none", input="plain"), 1, 2, 3.0, 1e-3).to(device)


def rate_of_training(loader: Iterator, batch: int, seconds: float, device: torch.device, precision: str,
                     waited: list[float]) -> Callable[[], float]:
    """Return a candidate that trains on patches from `loader`; it adds the share of waiting to `waited`."""
    step = training(build_network(device), precision, device)

    def measure() -> float:
        count, waiting, started = 0, 0.0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            asked = time.perf_counter()
            patches = next(loader)
            waiting += time.perf_counter() - asked
            step(*patches)
            count += batch
        waited.append(waiting / (time.perf_counter() - started))
        return count / (time.perf_counter() - started)

    for _ in range(2):
        step(*next(loader))
    return measure


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--size", default="450x300", help="WIDTHxHEIGHT of the video (default: 450x300)")
    parser.add_argument("--frames", type=int, default=300, help="its length (default: 300)")
    parser.add_argument("--patch", type=int, default=32, help="side of a patch in LR pixels (default: 32)")
    parser.add_argument("--batch", type=int, default=16, help="(default: 16)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a candidate in a turn (default: 3)")
    parser.add_argument("--train-seconds", type=float, default=10.0, help="of a training in a turn (default: 10)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    arguments = parser.parse_args()
    device = own_device(choose_device(arguments.device))
    keep_freed_memory()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="hpc-vsr-loading-") as scratch:
        folder = Path(scratch)
        video = make_clip(folder, (width, height), arguments.frames)
        preprocess(Recipe(video=video, shards=8, out=folder / "shards"), connect())
        manifest = read_manifest(folder / "shards")
        shards, resident = Split(manifest, "train"), Split(manifest, "train", device)
        loaders, notes = {}, {}
        for workers in WORKERS:
            loaders[f"PNG, {workers} workers"] = pictures(shards, folder / "png", arguments, workers)
        for name, package, make in (("WebDataset", "webdataset", webdataset), ("MosaicML", "streaming", mosaicml)):
            try:
                importlib.import_module(package)
            except Exception as error:  # torchvision of another build raises RuntimeError
                print(f"{name} is left out: {error} (pip install -e '.[benchmarks]')", file=sys.stderr)
                continue
            for workers in WORKERS:
                loaders[f"{name}, {workers} workers"] = make(shards, folder / package, arguments, workers)
        for workers in WORKERS:
            loaders[f"ours, shards, {workers} workers"] = ours(shards, arguments, workers, device)
        loaders["ours, resident"] = ours(resident, arguments, 0, device)
        rates = take_turns({name: rate_of_loader(loader, arguments.batch, arguments.seconds)
                            for name, loader in loaders.items()}, arguments.turns)
        there = next(ours(resident, arguments, 0, device))
        trainings = {"patches already there": itertools.repeat(there),
                     **{name: loader for name, loader in loaders.items() if name.startswith(("ours", "PNG"))}}
        waited: dict[str, list[float]] = {name: [] for name in trainings}
        seconds, precision = arguments.train_seconds, choose_precision(
            "auto", build_network(device), 1, device, arguments.patch).precision
        steps = take_turns({name: rate_of_training(loader, arguments.batch, seconds, device, precision, waited[name])
                            for name, loader in trainings.items()}, arguments.turns)
        what = f"{arguments.batch} patches of {arguments.patch}x{arguments.patch} of {arguments.size} on {device.type}"
        publish("loading", [
            Comparison(f"Loading batches of {what}", "samples/s", rates, notes=notes),
            Comparison(f"Training Delta in {precision} on batches of {what}", "samples/s", steps,
                       notes={name: f"{statistics.median(shares):.1%} waiting" for name, shares in waited.items()})
        ], arguments)
        del loaders, trainings  # workers must end before their files are gone


if __name__ == "__main__":
    main()
