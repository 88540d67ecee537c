"""State, mesh, step, checkpoints and the loop that trains."""
