"""The base of the networks: what `hpc_vsr.models.network.Network` needs of one to complete it."""

from __future__ import annotations

from torch import Tensor, nn


class Core(nn.Module):
    """Network from LR frames to the centre frame, less the border of one LR pixel a side that it may lose.

    `forward` maps (B, C, num_frames, h, w) to (B, C, s (h - 2), s (w - 2)).

    Attributes
    ----------
    last : nn.Conv2d
        The last layer, which starts at zero behind a residual path.
    has_flow : bool
        Whether it finds the optical flow, which has a loss of its own and for which it must see whole frames.
    has_first_stage : bool
        Whether `frame_map` gives a frame of the output's size, which can be measured by itself.
    scale : int
        How much it enlarges.
    num_frames : int
        Number of frames that it takes, with the centre frame in the middle.
    last_rate : float
        Fraction of the learning rate that the last layer gets behind a residual path. It starts at zero there, and in
        the paper's networks it sums hundreds of maps that are all positive: at the full rate its first steps overshoot,
        the layers before it learn to be silent, and the network is dead.
    """

    last: nn.Conv2d
    has_flow = False
    has_first_stage = False
    scale = 2
    num_frames = 5
    last_rate = 0.1

    def frame_map(self, lr: Tensor, position: int) -> Tensor:
        """Return what only the 2D part makes of one frame: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        raise NotImplementedError(f"{type(self).__name__} has no 2D part")

    def keep_alive(self, level: float) -> None:
        """Change the initialisation so that no ReLU starts with nothing to pass; `level` is half the value range."""
