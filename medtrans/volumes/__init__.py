"""Files to volumes and back: NIfTI, DICOM, MHA, NRRD and MGH, exact and guarded.

Read from the top down:

1. ``files`` tells the kinds apart and reads a volume of any of them; ``output`` writes one.
2. One reader and writer for each kind: ``nifti`` (its header's plain numbers in
   ``nifti_fields``, its forms and units in ``nifti_affine``), ``itk`` for MHA and NRRD (their text
   headers in ``itk_header``), ``mgh`` for FreeSurfer's MGZ, and ``dicom`` (whose order of reading
   stands in its own docstring).
3. What the kinds share: ``source`` (what a writer must know of its input; suffixes and names),
   ``voxels`` (stored numbers to float32), ``stream`` (bytes, checked before they are used),
   ``provenance`` (the label of a result), ``sidecar`` (the JSON beside it, and which files are
   therefore medtrans' own), ``contrast`` (what an image shows), ``geometry`` (affines, and every
   tolerance).

Beside them, ``images`` takes and gives images of other libraries, and ``describe`` is what
``medtrans info`` says of a file, and ``parts`` lists the files of a volume.

Importing this package imports no imaging library; reading or writing a file does.
"""

from __future__ import annotations

from medtrans.volumes.describe import describe
from medtrans.volumes.files import kind_of, read_volume, to_volume
from medtrans.volumes.geometry import require_same_grid
from medtrans.volumes.output import require_other_file, require_writable_output, write_volume
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.source import Source, output_path

__all__ = [
    "Provenance",
    "Source",
    "describe",
    "kind_of",
    "output_path",
    "read_volume",
    "require_other_file",
    "require_same_grid",
    "require_writable_output",
    "to_volume",
    "write_volume",
]
