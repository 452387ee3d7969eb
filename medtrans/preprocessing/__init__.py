"""A volume as the networks see it, and the way back."""
