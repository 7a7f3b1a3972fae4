"""Action rows and what they mean: layouts, poses, normalisation, masks and offsets, trajectories in the picture."""
