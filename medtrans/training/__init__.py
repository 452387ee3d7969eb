"""Training of both stages with one loop. Start at `run`, then `stages`, then `loop`."""
