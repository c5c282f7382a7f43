"""Renders clips of moving dead leaves: overlapping shapes of all sizes, with the statistics of photographs.

    python benchmarks/leaves.py --out data/leaves --clips 6 --frames 80

The shapes (discs, polygons, stripes, lines and letters) have sizes distributed as r^-3 (Lee, Mumford and Huang 2001),
each drifts and turns by itself, and the camera pans, turns and zooms. The frames are rendered at twice their size and
averaged down, so that they are sharp without aliasing. The same seed renders the same clip. The clips are CC0.
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

FINER = 2  # the frames are rendered at so many times their size
SHIFT = 4  # OpenCV's coordinates have so many fractional bits
SMALLEST, LARGEST = 3.0, 120.0  # radii of the shapes in pixels
BEHIND, LEAST_BEHIND = 400, 30.0  # so many shapes, of at least this radius, lie behind all others and fill the frame
LETTERS = "ABCDEFGHKLMNPRSTUVXYZabdefghkmnprstuvxyz0123456789"
RATE = 25


class Leaf:
    """A shape with its own place, size, grey level, drift and turn."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, smallest: float = SMALLEST):
        reach = 0.8 * max(width, height)
        self.place = rng.uniform(-reach, reach, 2)
        share = rng.uniform()  # of the radii, distributed as r^-3 from the smallest to the largest
        self.radius = (smallest**-2 + share * (LARGEST**-2 - smallest**-2)) ** -0.5
        self.grey = rng.uniform(8, 247, 2)
        self.drift, self.angle = rng.normal(0, 0.4, 2), rng.uniform(0, 2 * math.pi)
        self.turn = rng.normal(0, 0.01)
        self.kind = rng.choice(["disc", "polygon", "stripes", "line", "letter"], p=[0.3, 0.35, 0.2, 0.08, 0.07])
        corners = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
        self.corners = np.stack([np.cos(corners), np.sin(corners)], 1) * rng.uniform(0.5, 1, (len(corners), 1))
        self.flatness, self.stripes = rng.uniform(0.3, 1), int(rng.integers(3, 12))
        self.letter = str(rng.choice(list(LETTERS)))

    def draw(self, canvas: np.ndarray, time: int, camera: np.ndarray, zoom: float) -> None:
        """Paint it on what lies below; `camera` is (2, 3), from the scene to the canvas."""
        angle = self.angle + self.turn * time
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = self.place + self.drift * time

        def on_canvas(points: np.ndarray) -> np.ndarray:
            scene = points * self.radius @ turn.T + middle
            return np.rint((scene @ camera[:, :2].T + camera[:, 2]) * 2**SHIFT).astype(np.int32)
        light, dark = self.grey
        if self.kind == "disc":
            around = np.linspace(0, 2 * math.pi, 48, endpoint=False)
            points = np.stack([np.cos(around), self.flatness * np.sin(around)], 1)
            cv2.fillPoly(canvas, [on_canvas(points)], light, cv2.LINE_AA, SHIFT)
        elif self.kind == "polygon":
            cv2.fillPoly(canvas, [on_canvas(self.corners)], light, cv2.LINE_AA, SHIFT)
        elif self.kind == "stripes":
            edges = np.linspace(-1, 1, 2 * self.stripes + 1)
            for number, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
                points = np.array([[left, -self.flatness], [right, -self.flatness], [right, self.flatness],
                                   [left, self.flatness]])
                cv2.fillPoly(canvas, [on_canvas(points)], light if number % 2 else dark, cv2.LINE_AA, SHIFT)
        elif self.kind == "line":
            first, last = on_canvas(np.array([[-4.0, 0.0], [4.0, 0.0]]))
            thickness = max(1, round(0.15 * self.radius * zoom * FINER))
            cv2.line(canvas, first.tolist(), last.tolist(), light, thickness, cv2.LINE_AA, SHIFT)
        else:
            x, y = (on_canvas(np.zeros((1, 2)))[0] / 2**SHIFT).round().astype(int).tolist()
            size = max(0.3, self.radius * zoom * FINER / 15)
            cv2.putText(canvas, self.letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, light,
                        max(1, round(2 * size)), cv2.LINE_AA)


def render(seed: int, num_frames: int, width: int, height: int, num_leaves: int) -> np.ndarray:
    """Return the (T, H, W) uint8 grey frames of a clip."""
    rng = np.random.default_rng(seed)
    leaves = [Leaf(rng, width, height, LEAST_BEHIND) for _ in range(BEHIND)]
    leaves += [Leaf(rng, width, height) for _ in range(num_leaves)]
    pan, turn, growth = rng.normal(0, 1.2, 2), rng.normal(0, 0.004), rng.normal(0, 0.0015)
    frames = []
    for time in range(num_frames):
        zoom, angle = math.exp(growth * time), turn * time
        matrix = FINER * zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = FINER * (np.array([width, height]) / 2 + pan * (time - num_frames / 2))
        camera = np.column_stack([matrix, middle])
        canvas = np.full((FINER * height, FINER * width), 128, np.uint8)
        for leaf in leaves:
            leaf.draw(canvas, time, camera, zoom)
        frames.append(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def write(path: Path, frames: np.ndarray) -> None:
    """Write grey frames without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--clips", type=int, default=6, help="number of clips (default: 6)")
    parser.add_argument("--frames", type=int, default=80, help="frames of a clip (default: 80)")
    parser.add_argument("--size", default="480x320", help="WIDTHxHEIGHT (default: 480x320)")
    parser.add_argument("--leaves", type=int, default=3000, help="shapes in a clip (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first clip (default: 0)")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.clips):
        path = arguments.out / f"leaves{number + 1}.mkv"
        write(path, render(arguments.seed + number, arguments.frames, width, height, arguments.leaves))
        print(path)


if __name__ == "__main__":
    main()
