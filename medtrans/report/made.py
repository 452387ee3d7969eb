"""Names and versions that pages give in the same words."""

from __future__ import annotations

from platform import python_version

import monai
import numpy as np
import torch

from medtrans.config.terms import Contrast
from medtrans.version import __version__


def contrast_name(contrast: Contrast) -> str:
    """Spell a contrast as its field does: T1, T1c, FLAIR."""
    return "T1c" if contrast == "t1c" else contrast.upper()


def versions(medtrans: str = __version__) -> str:
    """List the versions of what makes a result; `medtrans` is that which made it."""
    return (
        f"medtrans {medtrans}, PyTorch {torch.__version__}, MONAI {monai.__version__}, "
        f"NumPy {np.__version__}, Python {python_version()}"
    )
