"""Which split a subject is in, by its name alone: a new subject does not move the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from medtrans.errors import UsageError

VAL_SHARE, TEST_SHARE = 0.1, 0.1


def split_by_name(
    subjects: Iterable[str], val: float = VAL_SHARE, test: float = TEST_SHARE
) -> dict[str, str]:
    """Split subjects by the rule that the docstring of `Manifest` states.

    Parameters
    ----------
    subjects
        Their names, each once.
    val, test
        Share of each split; the rest is train. A share of 0 leaves a split empty.

    Raises
    ------
    UsageError
        If a share is negative, or nothing is left for training.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            f"The shares of val ({val:g}) and test ({test:g}) leave nothing for training. Give two "
            "numbers from 0 on whose sum is below 1."
        )
    ranked = sorted(subjects, key=name_hash)
    if not ranked:
        return {}
    n, numbers = len(ranked), [name_hash(subject) for subject in ranked]
    n_train = sum(number < 1 - val - test for number in numbers)
    n_val = sum(number < 1 - test for number in numbers) - n_train
    asked = (val > 0) + (test > 0)
    n_held_out, n_test = min(n - 1, asked), int(n > asked and test > 0)  # at least so many
    n_train = min(max(n_train, 1), n - n_held_out)
    n_val = min(max(n_val, n_held_out - n_test), n - n_train - n_test)
    splits = ["train"] * n_train + ["val"] * n_val + ["test"] * (n - n_train - n_val)
    return dict(zip(ranked, splits, strict=True))


def name_hash(text: str) -> float:
    """Map a text to a number in [0, 1), the same on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
