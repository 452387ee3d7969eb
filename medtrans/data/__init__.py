"""Manifests: the CSV files that list volumes."""
