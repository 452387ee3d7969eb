"""Volumes of one patient brought onto one grid: rigid registration, resampling, and a check."""
