"""Model packages: the folder that `translate` loads, which is a MONAI bundle."""
