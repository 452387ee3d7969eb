"""Where the brain is in a whole head: a small network trained on random contrasts."""
