"""Digital head phantoms with MR signal equations and CT numbers, to try medtrans without data."""
