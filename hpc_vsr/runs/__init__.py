"""Everything that a training leaves: its folder, its checkpoints, its history and the trained network."""
