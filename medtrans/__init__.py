"""medtrans: medical volumes from one contrast to another, with DRDD.

>>> import medtrans
>>> translator = medtrans.Translator.load("brain_mri")      # doctest: +SKIP
>>> synthetic = translator.translate(image, task="t1-to-t2")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medtrans.errors import MedtransError

if TYPE_CHECKING:
    from medtrans import volumes
    from medtrans.settings import Settings
    from medtrans.translate import Translator

__version__ = "0.1.0"
__all__ = ["MedtransError", "Settings", "Translator", "__version__", "volumes"]


def __getattr__(name: str) -> Any:
    """Import torch and MONAI only when something that needs them is asked for."""
    homes = {"Settings": "medtrans.settings", "Translator": "medtrans.translate"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    if name == "volumes":
        return import_module("medtrans.volumes")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
