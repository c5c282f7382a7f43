"""Videos of any length and size for the benchmarks, made from the bundled clip."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2

SAMPLE = Path(__file__).resolve().parent.parent / "preprocess" / "sample" / "diamond.mp4"


def make_clip(folder: Path, size: tuple[int, int], num_frames: int) -> Path:
    """Write the bundled clip, played forth and back, at `size` (width, height), and return its path.

    It is H.264 with B-frames, 4:2:0.
    """
    path = folder / f"clip-{size[0]}x{size[1]}-{num_frames}.mp4"
    if path.exists():
        return path
    with av.open(str(SAMPLE)) as container:
        once = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    if (once[0].shape[1], once[0].shape[0]) != size:
        once = [cv2.resize(frame, size, interpolation=cv2.INTER_LANCZOS4) for frame in once]
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = *size, "yuv420p", Fraction(1, 30)
        stream.options = {"preset": "veryfast", "crf": "18"}
        there_and_back = itertools.cycle([*once, *once[-2:0:-1]])
        for index, bgr in enumerate(itertools.islice(there_and_back, num_frames)):
            frame = av.VideoFrame.from_ndarray(bgr, format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return partial.rename(path)


def add_clip(parser: argparse.ArgumentParser, num_frames: int) -> None:
    """Add the options of a benchmark on one video; `clip_of` reads them."""
    parser.add_argument("--size", default="450x300", help="WIDTHxHEIGHT of the video (default: 450x300)")
    parser.add_argument("--frames", type=int, default=num_frames, help=f"length of the video (default: {num_frames})")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR",
                        help="folder to write to (default: the folder for temporary files)")


def clip_of(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return the video, which is made if it is not there, and the folder for what a benchmark writes."""
    scratch = arguments.scratch / "hpc-vsr-benchmarks"
    scratch.mkdir(parents=True, exist_ok=True)
    width, height = map(int, arguments.size.split("x"))
    return make_clip(scratch, (width, height), arguments.frames), scratch
