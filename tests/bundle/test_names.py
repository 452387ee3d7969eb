"""Names that the configs of model packages point at, today's and those of earlier versions."""

from __future__ import annotations

from pydoc import locate

import pytest

import medtrans.bundle
from medtrans.bundle.training import Trainer
from medtrans.inference.settings import Settings
from medtrans.system.devices import choose_device


def test_every_name_of_the_package_is_there() -> None:
    for name in medtrans.bundle.__all__:
        assert locate(f"medtrans.bundle.{name}") is not None


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("medtrans.settings.Settings", Settings),
        ("medtrans.devices.choose_device", choose_device),
        ("medtrans.bundle_training.Trainer", Trainer),
    ],
)
def test_names_of_earlier_packages_are_found_as_monai_looks_for_them(
    former: str, now: object
) -> None:
    with pytest.warns(DeprecationWarning, match="medtrans bundle export"):
        assert locate(former) is now


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'network'"):
        medtrans.network  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Network'"):
        medtrans.bundle.Network  # noqa: B018
