"""Compares frames per second of an upscaling, file to file, with what people write and with what hardware allows.

    python benchmarks/upscale.py                                        450x300 to 900x600, compact
    python benchmarks/upscale.py --size 960x540 --frames 40

Every candidate is a process of its own that reads an H.264 file and writes one (x264, quality 16). It is timed after
its imports. All networks have the same random weights; their pictures are not looked at.

  scaler, swscale   FFmpeg's bicubic scaler between decoder and encoder: the cost of no network at all
  scaler, OpenCV    cv2.resize, bicubic, in its place
  usual loop        frames as PNG, a Dataset with a loader process, one window at a time, PNG, then the encoder
  one by one        our decoder, network and encoder in one thread, one after the other
  ours              python -m hpc_vsr.upscale
  floor             processor time of decoding, network and encoding, each measured alone, over the cores
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
CORES = len(os.sched_getaffinity(0))


def make_upscaler(model: str, precision: str) -> Any:
    """Return an upscaler with random weights, trained on nothing."""
    import torch

    from hpc_vsr.models.settings import Choice, ModelSettings
    from hpc_vsr.runs.trained import DataTerms, Trained
    from hpc_vsr.upscale.upscaler import Upscaler

    torch.manual_seed(0)
    settings = ModelSettings(name=model, skip="wiener", input="deconvolved")
    terms = DataTerms(1, 2, 3.0, 1e-3, 0.0, 255.0, "", is_video=True)
    network = terms.build(settings).eval().requires_grad_(False)
    torch.nn.init.normal_(network.core.last.weight, 0, 0.01)  # the last layer begins at zero, which computes faster
    trained = Trained(network, settings, terms, 0, "", "0" * 64)
    return Upscaler(trained, model, torch.device("cpu"), Choice(precision, "for this benchmark", "CPU"))


def plan(video: Path, out: Path, upscaler: Any) -> Any:
    """Return what our command plans for the video."""
    from hpc_vsr.upscale.loop import plan_upscaling
    from hpc_vsr.upscale.settings import UpscaleSettings

    return plan_upscaling(UpscaleSettings(video, out / "out.mp4", Path("none")), upscaler)


def add_stream(target: Any, width: int, height: int) -> Any:
    stream = target.add_stream("libx264", rate=30, options={"crf": "16"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    return stream


def do_scaler(video: Path, out: Path, enlarge: Callable[[Any], Any]) -> None:
    """Decode, enlarge each frame, and encode."""
    import av

    with av.open(str(video)) as source, av.open(str(out / "out.mp4"), "w") as target:
        read = source.streams.video[0]
        read.thread_type = "AUTO"
        written = add_stream(target, 2 * read.width, 2 * read.height)
        for index, frame in enumerate(source.decode(read)):
            enlarged = enlarge(frame)
            enlarged.pts = index
            target.mux(written.encode(enlarged))
        target.mux(written.encode(None))


def do_swscale(video: Path, out: Path, *_: str) -> Callable[[], None]:
    return lambda: do_scaler(video, out, lambda frame: frame.reformat(2 * frame.width, 2 * frame.height, "yuv420p",
                                                                      interpolation="BICUBIC"))


def do_opencv(video: Path, out: Path, *_: str) -> Callable[[], None]:
    import av
    import cv2

    def enlarge(frame: Any) -> Any:
        bgr = cv2.resize(frame.to_ndarray(format="bgr24"), (2 * frame.width, 2 * frame.height),
                         interpolation=cv2.INTER_CUBIC)
        return av.VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format="yuv420p")
    return lambda: do_scaler(video, out, enlarge)


def do_usual(video: Path, out: Path, model: str, _precision: str) -> Callable[[], None]:
    import av
    import cv2
    import numpy as np
    import torch

    network = make_upscaler(model, "fp32").trained.network

    class Windows(torch.utils.data.Dataset):
        def __init__(self, paths: list[Path]):
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Any:
            around = [min(max(index + step, 0), len(self) - 1) for step in range(-2, 3)]
            frames = [cv2.imread(str(self.paths[number])) for number in around]
            return torch.from_numpy(np.stack(frames)).float() / 255  # (5, h, w, 3)

    def work() -> None:
        read, written = out / "in", out / "out"
        read.mkdir()
        written.mkdir()
        with av.open(str(video)) as source:
            for index, frame in enumerate(source.decode(video=0)):
                cv2.imwrite(str(read / f"{index:06d}.png"), frame.to_ndarray(format="bgr24"))
        loader = torch.utils.data.DataLoader(Windows(sorted(read.iterdir())), num_workers=1)
        with torch.no_grad():
            for index, frames in enumerate(loader):
                # luma through the network, chroma by interpolation
                window = frames[0].numpy()
                luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb)[..., 0] for frame in window])
                enlarged = network.upscale(torch.from_numpy(luma)[None, None])[0, 0].numpy()
                ycc = cv2.cvtColor(window[2], cv2.COLOR_BGR2YCrCb)
                ycc = cv2.resize(ycc, enlarged.shape[::-1], interpolation=cv2.INTER_CUBIC)
                ycc[..., 0] = enlarged
                bgr = np.rint(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2BGR).clip(0, 1) * 255).astype(np.uint8)
                cv2.imwrite(str(written / f"{index:06d}.png"), bgr)
        with av.open(str(out / "out.mp4"), "w") as target:
            stream = add_stream(target, enlarged.shape[1], enlarged.shape[0])
            for index, path in enumerate(sorted(written.iterdir())):
                frame = av.VideoFrame.from_ndarray(cv2.imread(str(path)), format="bgr24").reformat(format="yuv420p")
                frame.pts = index
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    return work


def enlarged_one_by_one(planned: Any, upscaler: Any) -> Iterator[list[Any]]:
    """Yield the planes of enlarged frames: luma, and the chroma of the LR frame enlarged by interpolation."""
    import numpy as np
    import torch

    from hpc_vsr.upscale.planes import enlarge_chroma
    from hpc_vsr.upscale.windows import windows

    planes, source = planned.encoding.planes, planned.source
    pictures = source.read_planes(0, source.num_frames, planes.name)
    for window in windows(pictures, 0, planned.frames, source.num_frames, lambda picture: planes.to_grey(picture[0])):
        luma = np.stack([planes.to_grey(picture[0]) for picture in window])
        grey = upscaler.enlarge(torch.from_numpy(luma[None]))[0].numpy()
        centre = window[2]
        yield [planes.to_code(grey, centre[0]), *(enlarge_chroma(plane, planned.encoding, 2) for plane in centre[1:])]


def do_one_by_one(video: Path, out: Path, model: str, precision: str) -> Callable[[], None]:
    from hpc_vsr.media.video_sink import write_segment

    upscaler = make_upscaler(model, precision)
    planned = plan(video, out, upscaler)

    def work() -> None:
        pictures = enlarged_one_by_one(planned, upscaler)
        for number, frames in enumerate(planned.units):
            write_segment(out / f"{number}.nut", itertools.islice(pictures, len(frames)), planned.encoding)
    return work


def do_ours(video: Path, out: Path, model: str, precision: str) -> Callable[[], None]:
    from hpc_vsr.system.mpi import connect
    from hpc_vsr.upscale.loop import upscale
    from hpc_vsr.upscale.settings import UpscaleSettings

    upscaler, comm = make_upscaler(model, precision), connect()
    upscaler.memory(64, 64)  # imports what states the memory
    return lambda: upscale(UpscaleSettings(video, out / "out.mp4", Path("none")), upscaler, comm)


def floor_seconds(video: Path, out: Path, model: str, precision: str) -> float:
    """Return the processor time of decoding, network and encoding, each measured alone, over the cores."""
    import numpy as np
    import torch

    from hpc_vsr.media.video_sink import write_segment

    torch.set_num_threads(1)
    upscaler = make_upscaler(model, precision)
    planned = plan(video, out, upscaler)
    source, planes = planned.source, planned.encoding.planes
    clock = time.process_time()
    for _ in source.read_planes(0, source.num_frames, planes.name):
        pass
    decoding = time.process_time() - clock
    # the network on one frame in its place, prepared once, as often as there are frames
    frame = torch.from_numpy(planes.to_grey(next(source.read_planes(0, 1, planes.name))[0])[None])
    count = min(len(planned.frames), 60)
    upscaler.enlarge_seen([upscaler.prepare(frame)] * 5, frame.shape[1:])
    clock = time.process_time()
    for _ in range(count):
        upscaler.enlarge_seen([upscaler.prepare(frame)] * 5, frame.shape[1:])
    network = (time.process_time() - clock) * len(planned.frames) / count
    # the encoder on frames that were made before, those of the LR video enlarged by repetition
    made = [[np.repeat(np.repeat(plane, 2, 0), 2, 1) for plane in picture]
            for picture in source.read_planes(0, source.num_frames, planes.name)]
    clock = time.process_time()
    for number, frames in enumerate(planned.units):
        write_segment(out / f"{number}.nut", (made[index] for index in frames), planned.encoding)
    encoding = time.process_time() - clock
    return (decoding + network + encoding) / CORES


CANDIDATES = {"scaler, swscale": do_swscale, "scaler, OpenCV": do_opencv, "usual loop": do_usual,
              "one by one": do_one_by_one, "ours": do_ours}


def child(name: str, video: Path, out: Path, model: str, precision: str) -> None:
    """Run a candidate once; print its seconds, the most memory of its processes, and the bytes that it left on disk."""
    with (out / "stderr").open("w") as stream, contextlib.redirect_stderr(stream):
        if name == "floor":
            seconds = floor_seconds(video, out, model, precision)
        else:
            work = CANDIDATES[name](video, out, model, precision)
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
    peak, = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(json.dumps({"seconds": seconds, "memory": int(peak) / 1024, "disk": disk / 1e6}))


def main() -> None:
    from clips import add_clip, clip_of
    from compare import Comparison, build_parser, publish, take_turns

    parser = build_parser(__doc__)
    add_clip(parser, 200)
    parser.add_argument("--model", default="compact", help="network for 2 times (default: compact)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"],
                        help="of our candidates; the usual loop computes in fp32 (default: fp32)")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="candidates that are left out")
    arguments = parser.parse_args()
    video, scratch = clip_of(arguments)
    notes: dict[str, str] = {}

    def candidate(name: str) -> Callable[[], float]:
        def measure() -> float:
            with tempfile.TemporaryDirectory(dir=scratch) as out:
                done = subprocess.run([sys.executable, __file__, "--child", name, str(video), out, arguments.model,
                                       arguments.precision], text=True, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            if name != "floor":
                notes[name] = f"{found['memory']:,.0f} MB of memory, {found['disk']:,.1f} MB on disk"
            return arguments.frames / found["seconds"]
        return measure

    rates = take_turns({name: candidate(name) for name in ("one by one", "ours", "usual loop", "scaler, OpenCV",
                                                           "scaler, swscale", "floor")
                        if name not in arguments.without}, arguments.turns)
    publish("upscale", [Comparison(
        f"Upscaling {arguments.frames} frames of {arguments.size}, {arguments.model} in {arguments.precision}, "
        f"{CORES} cores", "frames/s", rates, limit="floor" if "floor" in rates else "", notes=notes)], arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:])
    else:
        main()
