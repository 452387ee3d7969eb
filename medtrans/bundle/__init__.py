"""What the configs of a model package name, when MONAI's bundle tools run it.

Everything that a config may name is an attribute of this package, so that packages stay valid when
the modules behind it move.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "BundleTranslator": "bundle.inference",
    "Evaluator": "bundle.inference",
    "ReadVolumed": "bundle.inference",
    "SliceInferer": "bundle.inference",
    "ToInputSpaced": "bundle.inference",
    "ToModelSpaced": "bundle.inference",
    "TranslationNetwork": "bundle.network",
    "WriteVolumed": "bundle.inference",
    "list_volumes": "bundle.inference",
    "TellWhereModelIs": "bundle.training",
    "Trainer": "bundle.training",
    "TrainingPatches": "bundle.training",
    "join_processes": "bundle.process",
    "own_device": "bundle.process",
    "Settings": "inference.settings",
    "choose_device": "bundle.process",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the module behind a name when a config asks for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"medtrans.{_HOMES[name]}"), name)
