"""What the brain finder is trained on, its training, and how well it finds brains."""
