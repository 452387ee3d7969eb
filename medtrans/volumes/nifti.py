"""NIfTI-1 and NIfTI-2, single files and pairs, plain or gzip.

The header is read and checked first, from its own few hundred bytes; then the length and
checksum of the whole content; only then is anything of the declared size allocated.
Layout and meaning of the fields: NIfTI-1.1 (nifti1.h) and NIfTI-2 (nifti2.h).
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from medtrans.errors import UnreadableFileError
from medtrans.system.atomic import replacing
from medtrans.volumes import geometry, stream
from medtrans.volumes.contrast import from_name
from medtrans.volumes.geometry import Affine
from medtrans.volumes.nifti_affine import affine_of
from medtrans.volumes.nifti_fields import choose_volume, declared_shape, scaling, voxel_offset
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.sidecar import Claim, image_files, sidecar_of, write_sidecar
from medtrans.volumes.source import Source, require_file, split_suffix, unreadable_on_error
from medtrans.volumes.voxels import Loaded, Stored, in_file_order, to_float32

# Only these survive into an output: they place the voxels. Free text does not.
GRID_FIELDS = (
    "dim", "pixdim", "dim_info", "xyzt_units", "qform_code", "sform_code",
    "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip
PHANTOM = b"PHANTOM by medtrans; not acquired"
_SCALAR_KINDS = "iuf"


@dataclass(frozen=True)
class _Header:
    """A header whose every used field has been checked."""

    fields: Nifti1Header
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    affine: Affine
    warnings: tuple[str, ...]

    @property
    def end(self) -> int:
        """First byte after the voxels."""
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def read(path: Path, volume: int | None = None) -> Loaded:
    """Read a NIfTI file into voxels in the file's own axis order.

    Parameters
    ----------
    path
        ``.nii``, ``.hdr`` or ``.img``, each also gzipped; the content decides, not the name.
    volume
        Which one, counted from 0, of a file with several volumes.

    Returns
    -------
    Loaded
        Voxels float32 of shape (X, Y, Z) and their affine.

    Raises
    ------
    UnreadableFileError
        If a byte of the file cannot be trusted, or the voxels are not real numbers.
    GeometryError
        If the affine is unusable, or the file has several volumes and none is chosen.
    """
    path, image = _pair(path)
    require_file(path)
    require_file(image)
    with unreadable_on_error(path):
        header = _read_header(path, single=path == image)
        index, count = choose_volume(header.shape, volume, path)
        digest = stream.verify(image, header.end)
        if image != path:
            digest = hashlib.sha256(f"{stream.sha256(path)}{digest}".encode()).hexdigest()
        voxels = _load(image, header, index)
        slope, intercept = scaling(header.fields, path)
        array, warnings = to_float32(voxels, slope, intercept, str(path))
        fields = grid_only(header.fields, picked=count > 1)
    source = Source(
        path=path,
        kind="nifti",
        sha256=digest,
        shape=header.shape if count == 1 else header.shape[:3],
        affine=tuple(header.affine.ravel().tolist()),
        header=fields,
        warnings=(*header.warnings, *warnings),
        contrast=from_name(split_suffix(path)[0]),
    )
    return Loaded(array, header.affine, source, str(header.dtype.newbyteorder("=")))


def shape_of(path: Path) -> tuple[int, ...]:
    """Shape that a sound header declares; nothing behind the header is read.

    Parameters and errors are those of `read`.
    """
    path, image = _pair(path)
    require_file(path)
    require_file(image)
    with unreadable_on_error(path):
        return _read_header(path, single=path == image).shape


def write(voxels: Stored, path: Path, source: Source, provenance: Provenance) -> list[Path]:
    """Write voxels on the grid of `source`, labelled synthetic, with a JSON sidecar.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z); integers keep their type, everything else becomes float32.
    path
        ``.nii``, ``.nii.gz`` or the ``.hdr`` or ``.img`` of a pair.
    source
        Whose grid the voxels lie on. A NIfTI source gives its shape, affines, codes and units
        bit for bit; another kind gives its affine as qform and sform.
    provenance
        The label.

    Returns
    -------
    list of Path
        The image (both files of a pair) and the sidecar.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    suffix = split_suffix(path)[1]
    single = suffix.startswith(".nii")
    header = _output_header(source, voxels.dtype, provenance, single=single)
    block: bytes = header.binaryblock + (b"\0" * 4 if single else b"")
    data = in_file_order(np.asarray(voxels, dtype=header.get_data_dtype()))
    sidecar, outputs = sidecar_of(path, "nifti"), image_files(path, "nifti")
    claim = Claim.of(source, provenance)
    with ExitStack() as stack:
        # Renamed in reverse: the label is in place before the image it labels.
        temporary = [stack.enter_context(replacing(output)) for output in (*outputs, sidecar)]
        if single:
            stream.write(temporary[0], chain([block], data), packed=suffix == ".nii.gz")
        else:
            stream.write(temporary[0], data, packed=False)
            temporary[1].write_bytes(block)
        images = dict(zip(outputs, temporary[:-1], strict=True))
        write_sidecar(temporary[-1], provenance, sidecar, claim, images)
    return [*outputs, sidecar]


def save_array(path: Path, voxels: Stored, affine: Affine, label: bytes = PHANTOM) -> None:
    """Write an array as NIfTI, and say in its header where it came from; a phantom by default.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    voxels
        Shape (X, Y, Z), kept in its own type, with no scaling.
    affine
        Voxel to RAS+ millimetres: becomes qform and sform.
    label
        The header's description, at most 79 bytes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    header = _new_header(voxels.shape, affine)
    header.set_data_dtype(voxels.dtype)
    header["magic"], header["vox_offset"] = b"n+1", header.template_dtype.itemsize + 4
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["descrip"] = label
    content = chain([header.binaryblock + b"\0" * 4], in_file_order(voxels))
    with replacing(path) as temporary:
        stream.write(temporary, content, packed=path.name.endswith(".gz"))


def _pair(path: Path) -> tuple[Path, Path]:
    """Header file and image file of a path: the same but for .hdr/.img."""
    stem, suffix = split_suffix(path)
    if suffix.startswith(".nii") or suffix[:4] not in (".hdr", ".img"):
        return path, path
    header, image = (_packed_or_plain(path.with_name(stem + part)) for part in (".hdr", ".img"))
    for half in (header, image):
        if path.exists() and not half.exists():
            raise UnreadableFileError(
                f"{path}: its other half {half.name} is missing; a NIfTI pair needs both "
                "the .hdr and the .img file in one folder. Copy the missing one beside it."
            )
    return header, image


def _packed_or_plain(plain: Path) -> Path:
    packed = plain.with_name(plain.name + ".gz")
    return packed if packed.exists() and not plain.exists() else plain


def _read_header(path: Path, *, single: bool) -> _Header:
    block = stream.head(path, Nifti2Header.template_dtype.itemsize)
    fields = _parse(block, path)
    magic = fields["magic"].item()
    if magic.startswith(b"n+") != single:
        raise UnreadableFileError(
            f"{path}: the NIfTI magic says {'a single file' if not single else 'a .hdr/.img pair'} "
            f"but the name says {'a .hdr/.img pair' if not single else 'a single file'}. "
            "Rename it, or convert it again."
        )
    shape = declared_shape(fields, path)
    dtype = _dtype(fields, path)
    geometry.check_size(shape, dtype.itemsize, str(path))
    affine, warnings = affine_of(fields, path)
    least = fields.template_dtype.itemsize + 4 if single else 0
    offset = voxel_offset(fields, path, least)
    return _Header(fields, shape, dtype, offset, affine, tuple(warnings))


def _parse(block: bytes, path: Path) -> Nifti1Header:
    for kind, sizes in ((Nifti1Header, (348,)), (Nifti2Header, (540,))):
        size = kind.template_dtype.itemsize
        declared = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
        if len(block) >= size and declared & set(sizes):
            fields = kind(binaryblock=block[:size], check=False)
            # The magic is four bytes in both; numpy drops the zeros at its end.
            if fields["magic"].item()[:3] in (b"n+1", b"ni1", b"n+2", b"ni2"):
                return fields
    raise UnreadableFileError(
        f"{path}: expected a NIfTI header (348 or 540 bytes with the magic n+1, ni1, n+2 or ni2), "
        "found none. The file is damaged, is of another format, or is old Analyze: convert it "
        "to NIfTI."
    )


def _dtype(fields: Nifti1Header, path: Path) -> np.dtype[np.generic]:
    code = int(fields["datatype"])
    try:
        dtype: np.dtype[np.generic] = fields.get_data_dtype()
        label = str(data_type_codes.label[code])
    except (KeyError, HeaderDataError):
        dtype, label = np.dtype("V1"), "unknown"
    if dtype.kind not in _SCALAR_KINDS or dtype.itemsize not in (1, 2, 4, 8):
        raise UnreadableFileError(
            f"{path}: the header field datatype is {code} ({label}); expected real numbers of 8 "
            "to 64 bits. Convert complex images to magnitude and colour images to one channel."
        )
    if int(fields["bitpix"]) != dtype.itemsize * 8:
        raise UnreadableFileError(
            f"{path}: the header fields disagree: datatype {label} has {dtype.itemsize * 8} bits, "
            f"bitpix says {int(fields['bitpix'])}. The header is damaged: convert it again."
        )
    return dtype


def _load(image: Path, header: _Header, index: int) -> Stored:
    shape = (*header.shape[:3], 1)[:3]
    count = int(np.prod(shape, dtype=np.int64)) * header.dtype.itemsize
    content = stream.load(image, header.offset + index * count, count)
    return content.view(header.dtype).reshape(shape, order="F")


def grid_only(fields: Nifti1Header, *, picked: bool = False) -> Nifti1Header:
    """Return a new header with the fields that place the voxels and nothing else.

    Parameters
    ----------
    fields
        A header of nibabel's.
    picked
        Whether one volume was picked of several.
    """
    clean = type(fields)(endianness="<")
    for name in GRID_FIELDS:
        clean[name] = fields[name]
    if picked:
        clean["dim"][0], clean["dim"][4] = 3, 1
    return clean


def _output_header(
    source: Source, dtype: np.dtype[np.generic], provenance: Provenance, *, single: bool
) -> Nifti1Header:
    if isinstance(source.header, Nifti1Header):  # NIfTI-2's is one, too
        header = source.header.copy()
    else:
        header = _new_header(source.shape, source.affine_matrix)
    integer = dtype.kind in "iu" or dtype == np.bool_
    header.set_data_dtype((np.uint8 if dtype == np.bool_ else dtype) if integer else np.float32)
    version = b"2" if isinstance(header, Nifti2Header) else b"1"
    header["magic"] = (b"n+" if single else b"ni") + version
    header["vox_offset"] = header.template_dtype.itemsize + 4 if single else 0
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["descrip"] = provenance.label().encode("ascii")
    return header


def _new_header(shape: tuple[int, ...], affine: Affine) -> Nifti1Header:
    header = Nifti1Header(endianness="<") if max(shape) < 2**15 else Nifti2Header(endianness="<")
    header.set_data_shape(shape)
    header.set_zooms((*geometry.spacing_mm(affine), 1.0)[: len(shape)])
    header.set_sform(affine, code="scanner")
    if not geometry.is_sheared(affine):
        header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm", "sec")
    return header
