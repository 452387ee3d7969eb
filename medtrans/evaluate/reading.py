"""The files of a prediction, read onto the grid of the real image."""

from __future__ import annotations

from monai.data import MetaTensor

from medtrans.data.predictions import Prediction
from medtrans.errors import FileError
from medtrans.evaluate.regions import regions_of
from medtrans.evaluate.scores import Reference, array_axis
from medtrans.evaluate.uncertainty import Uncertainty
from medtrans.package.folder import stated_widths
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import AXES
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.voxels import Voxels


def read_truth(one: Prediction, window: Profile | None) -> tuple[MetaTensor, Reference]:
    """Read the real image, and measure where it is scored."""
    volume = read_volume(one.reference)
    regions = regions_of(volume, one.foreground, one.region)
    if window is None and in_hu(float(volume.min())):
        say(_LOOKS_LIKE_CT.format(one.reference))
    axis = array_axis(volume, AXES["axial"])
    return volume, Reference(volume.numpy(), regions, window, axis)


def read_prediction(one: Prediction, volume: MetaTensor) -> Voxels:
    predicted = read_volume(one.prediction)
    what = f"The prediction {one.prediction} and the reference {one.reference}"
    require_same_grid(predicted, volume, what)
    voxels: Voxels = predicted.numpy()
    return voxels


def read_uncertainty(one: Prediction, volume: MetaTensor) -> Uncertainty | None:
    """Read a map, whose intervals its sidecar may state."""
    path = one.uncertainty
    if path is None:
        return None
    read = read_volume(path)
    require_same_grid(read, volume, f"The uncertainty map {path} and the reference {one.reference}")
    voxels = read.numpy()
    if voxels.min() < 0:
        raise FileError(
            f"{path} has values below 0; an uncertainty map says how far off, 0 or more."
        )
    return Uncertainty.of(voxels, stated_widths(path))


_LOOKS_LIKE_CT = "The reference {} looks like CT, in HU: score it on a window, --window -1000 2000."
