"""Truncated, flipped, lying and swollen files: refused, quickly, in bounded memory."""

import gzip
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from medtrans.errors import MedtransError, UnreadableFileError
from medtrans.volumes import stream
from medtrans.volumes.files import load
from tests.volumes.builders import nifti_bytes


@pytest.fixture(scope="module")
def packed():
    return nifti_bytes((20, 18, 16))


@pytest.fixture(scope="module")
def voxels(packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.nii.gz"
    path.write_bytes(packed)
    return load(path, None, None)


def accepted_wrongly(path, truth):
    try:
        loaded = load(path, None, None)
    except MedtransError:
        return False
    same = np.array_equal(loaded.voxels, truth.voxels)
    return not (same and np.array_equal(loaded.affine, truth.affine))


def test_400_truncations(packed, voxels, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.nii.gz"
    for end in rng.integers(0, len(packed), 400):
        path.write_bytes(packed[:end])
        with pytest.raises(UnreadableFileError):
            load(path, None, None)


def test_400_bit_flips(packed, voxels, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "a.nii.gz"
    for bit in rng.integers(0, len(packed) * 8, 400):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        assert not accepted_wrongly(path, voxels), f"bit {bit}"


def quickly_and_in_little_memory(path, words, limit_mb=24):
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(MedtransError, match=words):
        load(path, None, None)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1
    assert peak < limit_mb * 2**20


def declare(shape):
    """A valid float32 file whose header claims another shape."""

    def edit(header):
        header["dim"][: len(shape) + 1] = [len(shape), *shape]

    return nifti_bytes(dtype=np.float32, packed=False, edit=edit)


@pytest.mark.parametrize("shape", [(1024, 1024, 1024), (512, 512, 1000), (300, 300, 300)])
def test_a_16_kb_file_that_declares_gigabytes(tmp_path, shape):
    path = tmp_path / "liar.nii.gz"
    noise = np.random.default_rng(0).bytes(16_000)
    path.write_bytes(gzip.compress(declare(shape) + noise, 1))
    quickly_and_in_little_memory(path, "declares")
    (tmp_path / "liar.nii").write_bytes(declare(shape) + noise)
    quickly_and_in_little_memory(tmp_path / "liar.nii", "declares")


@pytest.fixture(scope="module")
def zeros():
    """2 GiB of zeros as 2 MB of gzip: one member repeated, as gzip allows."""
    return gzip.compress(bytes(2**26), 9) * 32


def test_a_2_mb_bomb_with_a_small_header(tmp_path, zeros):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes(packed=False)) + zeros)
    assert path.stat().st_size < 2.5e6
    quickly_and_in_little_memory(path, "more than the")


def test_a_2_mb_bomb_with_an_honest_header(tmp_path, zeros):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(declare((1024, 1024, 512))[:352]) + zeros)
    quickly_and_in_little_memory(path, "at most")


def test_every_gzip_layout_of_the_same_bytes_reads_the_same(tmp_path):
    plain = nifti_bytes(packed=False)
    half = len(plain) // 2
    layouts = {
        "members": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        "padded": gzip.compress(plain) + b"\0" * 100,
        "stored": gzip.compress(plain, 0),
    }
    (tmp_path / "plain.nii").write_bytes(plain)
    truth = load(tmp_path / "plain.nii", None, None)
    for name, content in layouts.items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        assert np.array_equal(load(path, None, None).voxels, truth.voxels)
    path.write_bytes(gzip.compress(plain) + b"rubbish")
    with pytest.raises(UnreadableFileError, match="damaged"):
        load(path, None, None)


@pytest.mark.parametrize("size", [0, 1, stream.PIECE - 1, stream.PIECE, 3 * stream.PIECE + 7])
def test_pieces_join_to_the_whole(tmp_path, size):
    content = np.random.default_rng(size).integers(0, 4, size, dtype=np.uint8).tobytes()
    for name, data, wbits in (
        ("gzip", gzip.compress(content, 1), stream.GZIP),
        ("zlib", zlib.compress(content), stream.ZLIB),
        ("plain", content, None),
    ):
        path = tmp_path / name
        path.write_bytes(b"skip" + data)
        stream.verify_part(path, 4, size, wbits)
        pieces = list(stream._pieces(path, start=4, wbits=wbits))
        assert b"".join(pieces) == content
        assert all(len(piece) <= stream.PIECE for piece in pieces)
        for wrong in (size + 1, size - 1):
            with pytest.raises(UnreadableFileError):
                stream.verify_part(path, 4, wrong, wbits)


@pytest.mark.parametrize("packed", [True, False])
def test_a_part_beyond_the_first_piece_is_that_part_and_a_missing_one_is_noticed(tmp_path, packed):
    content = np.random.default_rng(0).integers(0, 4, 3 * stream.PIECE, dtype=np.uint8)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(content.tobytes(), 1) if packed else content.tobytes())
    start, count = 2 * stream.PIECE + 11, stream.PIECE // 2
    assert np.array_equal(stream.load(path, start, count), content[start : start + count])
    with pytest.raises(UnreadableFileError, match=f"holds only {len(content)}"):
        stream.load(path, start, stream.PIECE)  # as if the file were another one by now


def test_trailing_bytes_are_a_lie_too(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes(packed=False) + b"\0")
    with pytest.raises(UnreadableFileError, match="more than the"):
        load(path, None, None)
