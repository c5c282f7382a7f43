"""Export the network of a run for other programs as ONNX and torch.export, with a model card that describes its use.

The exported network takes frames as they are, (B, C, 5, h, w) of any size (B = 1 for flow4x), in grey levels 0..255 or
in the units of the field. It returns the enlarged centre frames, (B, C, s h, s w). Each file is kept only if it agrees
with the network on frames of another size.

    python -m hpc_vsr.export --run runs/delta --out exports/delta
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("export", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, runs/NAME")
    parser.add_argument("--out", type=Path | None, default=None, help="folder to write; the default is RUN/export")
    parser.add_argument("--formats", type=Literal["onnx", "pt2", "both"], default="both",
                        help="onnx, pt2 (torch.export) or both")
    parser.add_argument("--sigma", type=float | None, default=None,
                        help="blur in pixels of the output, for a network of a range of blurs (train.sigma); the file "
                             "is for this blur only; the default is that of the training data")
    parser.add_argument("--noise", type=float | None, default=None,
                        help="noise of the frames in grey levels, for a network of noisy recordings (train.noise); the "
                             "default is none")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    # imported late: torch takes seconds, which --help and a mistyped option should not
    from hpc_vsr.export.formats import FORMATS, export

    formats = FORMATS if arguments.formats == "both" else (arguments.formats,)
    export(RunFolder(arguments.run), arguments.out or arguments.run / "export", formats,
           arguments.sigma, arguments.noise)


if __name__ == "__main__":
    sys.exit(exit_status(main))
