"""The network that comes with hpc-vsr, for upscaling before anything was trained: 2 times, luma, any blur."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("any-blur-2x")  # a run folder; its README.md is the model card
PURPOSE = ("2 times, luma of videos and images, blurs of 0 to 4 pixels of the result, noise of 0 to 4 grey levels; not "
           "for fields, and not made for strong compression")
