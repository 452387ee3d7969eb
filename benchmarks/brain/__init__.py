"""The brain finder's atlas, made anew, and how well it finds brains."""
