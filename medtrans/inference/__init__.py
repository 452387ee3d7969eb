"""Translating: one volume, one file, a cohort. Start at `translator`."""
