"""medtrans: medical volumes from one contrast to another, with DRDD.

>>> import medtrans
>>> translator = medtrans.Translator.load("brain_mri")      # doctest: +SKIP
>>> synthetic = translator.translate(image, task="t1-to-t2")  # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medtrans.errors import MedtransError
from medtrans.version import __version__

if TYPE_CHECKING:
    from medtrans import volumes
    from medtrans.inference.settings import Settings
    from medtrans.inference.translator import Translator

__all__ = ["MedtransError", "Settings", "Translator", "__version__", "volumes"]

_HOMES = {"Settings": "medtrans.inference.settings", "Translator": "medtrans.inference.translator"}
# Modules that the configs of older model packages name, and where they are now.
_FORMER = {
    "bundle_training": "medtrans.bundle",
    "devices": "medtrans.system.devices",
    "settings": "medtrans.inference.settings",
}


def __getattr__(name: str) -> Any:
    """Import torch and MONAI only when something that needs them is asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "volumes":
        return import_module("medtrans.volumes")
    if name in _FORMER:
        warnings.warn(
            f"medtrans.{name} is now {_FORMER[name]}; write the model package again with "
            "`medtrans bundle export`.",
            DeprecationWarning,
            stacklevel=2,
        )
        return import_module(_FORMER[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
