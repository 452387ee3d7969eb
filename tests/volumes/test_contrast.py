"""What a name, a sidecar or a sequence tells of the contrast."""

import pytest

from medtrans.volumes.contrast import (
    from_bids,
    from_name,
    from_sidecar,
    is_no_image,
    refined,
    without_contrast,
)


@pytest.mark.parametrize(
    ("suffix", "agent", "contrast"),
    [("T1w", False, "t1"), ("T1w", True, "t1c"), ("UNIT1", False, "t1"), ("T2w", True, "t2"),
     ("FLAIR", False, "flair"), ("PDw", False, "pd"), ("ct", False, "ct"), ("bold", False, None)],
)  # fmt: skip
def test_bids(suffix, agent, contrast):
    assert from_bids(suffix, agent=agent) == contrast


@pytest.mark.parametrize(
    ("name", "rest"),
    [("t1", ""), ("IXI012-HH-1211-T1", "IXI012-HH-1211"), ("T1_sub3", "sub3"), ("a_t2_b", "a_b"),
     ("p3 - mprage", "p3"), ("nothing", "nothing"), ("p1_mask", "p1_mask")],
)  # fmt: skip
def test_what_is_left_of_a_name(name, rest):
    assert without_contrast(name) == rest


@pytest.mark.parametrize(
    ("name", "is_none"),
    [("brainmask", True), ("t1_mask", True), ("tumour_seg", True), ("dseg", True), ("adc", True),
     ("t1_masked", False), ("t1", False), ("scan", False), ("damask", True)],
)  # fmt: skip
def test_no_image(name, is_none):
    assert is_no_image(name) == is_none
    assert not is_none or from_name(name) is None


@pytest.mark.parametrize(
    ("entries", "contrast"),
    [
        ({"EchoTime": 0.1, "RepetitionTime": 4.0, "ScanningSequence": "SE"}, "t2"),
        ({"EchoTime": 0.1, "RepetitionTime": 9, "InversionTime": 2.5}, "flair"),
        ({"EchoTime": 0.003, "RepetitionTime": 2.0, "InversionTime": 0.9,
          "ScanningSequence": "GR\\IR"}, "t1"),
        ({"EchoTime": 0.01, "RepetitionTime": 0.5, "ContrastBolusIngredient": "GADOLINIUM"}, "t1c"),
        ({"EchoTime": 0.1, "RepetitionTime": 4, "ScanningSequence": ["EP", "SE"]}, None),
        ({"EchoTime": 0.1, "RepetitionTime": 4, "ImageType": ["DERIVED", "ADC"]}, None),
        ({"Modality": "CT"}, "ct"), ({}, None), ({"EchoTime": "0.1", "RepetitionTime": []}, None),
    ],
)  # fmt: skip
def test_sidecar(entries, contrast):
    assert from_sidecar(entries) == contrast


@pytest.mark.parametrize(
    ("sequence", "name", "contrast"),
    [("t1", "t1c", "t1c"), ("t2", "flair", "flair"), ("t1", "t2", "t1"), ("flair", "t2", "flair"),
     (None, "pd", "pd"), ("t1", None, "t1"), (None, None, None)],
)  # fmt: skip
def test_the_name_only_refines(sequence, name, contrast):
    assert refined(sequence, name) == contrast
