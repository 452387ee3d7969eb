"""Which contrast an image shows, as far as its name or its sequence tells; None if unsure.

Thresholds of MR sequences are the usual clinical ones at 1.5 T and 3 T (Bernstein, King and Zhou,
Handbook of MRI Pulse Sequences, 2004), with gaps between the classes left unnamed. CT is in
Hounsfield units (HU), which put water at 0 and air at -1000.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from medtrans.config.terms import Contrast

AIR_HU = -1000.0  # by the definition of the unit
# The range of what CT scanners store: HU + 1024 in 12 bits. They pad with its lower end.
LOWEST_STORED_HU, HIGHEST_STORED_HU = -1024, 3071
# What counts as a tissue when a CT image is scored: from the first HU up to, not including, the
# second. Fat lies at -100, muscle at 50; spongy bone begins at about 200.
TISSUES_HU = {"soft": (-200.0, 200.0), "bone": (200.0, HIGHEST_STORED_HU + 1.0)}

# First match wins: FLAIR is T2-weighted, T1c is T1-weighted, T2* is none of ours.
_NAMES: tuple[tuple[Contrast | None, str], ...] = (
    (None, r"adc|dwi|dti|ep2d|diff\w*|trace\w*|bold|swi|t2star|[a-z]*seg|[a-z]*mask|label\w*"),
    ("flair", r"t?2?[ _-]?flair|tirm"),
    ("t1c", r"t1(?:w)?(?:c|ce|gd|post|kd)|t1[ _-]?(?:km|gd|post|contrast)"),
    ("t1", r"t1w?n?|mprage|mp2rage|spgr|bravo|tfl3d"),
    ("t2", r"t2w?n?|t2f?se"),
    ("pd", r"pdw?"),
    ("ct", r"ct"),
    ("mr", r"mri?"),
)


# Of the Brain Imaging Data Structure: the last part of an image's name.
_BIDS_SUFFIXES: dict[str, Contrast] = {
    "T1w": "t1", "UNIT1": "t1", "T2w": "t2", "FLAIR": "flair", "PDw": "pd", "ct": "ct",
}  # fmt: skip


def from_bids(suffix: str, *, agent: bool) -> Contrast | None:
    """Tell from a BIDS suffix, for instance ``T1w``.

    Parameters
    ----------
    suffix
        What stands behind the last underscore of the name.
    agent
        Whether the name has the entity ``ce``, for a contrast agent.
    """
    contrast = _BIDS_SUFFIXES.get(suffix)
    return "t1c" if contrast == "t1" and agent else contrast


def is_no_image(name: str) -> bool:
    """Whether a name says that a file holds a mask, a map or another image than medtrans' own."""
    return _first_match(name.lower())[:2] == (True, None)


def without_contrast(name: str) -> str:
    """Return what is left of a name without the word that tells its contrast."""
    found, contrast, span = _first_match(name.lower())
    if not found or contrast is None:
        return name
    rest = f"{name[: span[0]]} {name[span[1] :]}"
    return re.sub(r"[\s_.-]*\s[\s_.-]*", "_", rest).strip("_")


def _first_match(words: str) -> tuple[bool, Contrast | None, tuple[int, int]]:
    """Whether a known word stands in a name, which contrast it tells, and where it stands."""
    for contrast, pattern in _NAMES:
        match = re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", words)
        if match:
            return True, contrast, match.span()
    return False, None, (0, 0)


def from_name(name: str) -> Contrast | None:
    """Guess from a file's name or a series' description, for instance ``sub-1_T1w``."""
    words = re.sub(r"(?i)(?<=[^a-z])ce-[a-z0-9]+_t1w", "t1c", name.lower())
    return _first_match(words)[1]


def in_hu(lowest: float) -> bool:
    """Whether intensities that go this low are HU: no MR image's come near those of air.

    Parameters
    ----------
    lowest
        The lowest intensity of an image of unknown contrast.
    """
    return lowest <= AIR_HU / 2  # half-way from water to air


@dataclass(frozen=True)
class Sequence:
    """Parameters of an MR sequence; None where the image does not say.

    Attributes
    ----------
    echo_ms, repetition_ms, inversion_ms : float or None
        Echo time, repetition time and inversion time.
    flip_deg : float or None
        Flip angle.
    codes : collection of str
        DICOM's ScanningSequence and ImageType, such as "SE", "GR", "EP", "DIFFUSION".
    agent : bool
        Whether a contrast agent was given.
    """

    echo_ms: float | None
    repetition_ms: float | None
    inversion_ms: float | None
    flip_deg: float | None
    codes: Collection[str]
    agent: bool


def from_sequence(sequence: Sequence) -> Contrast | None:
    """Guess from the parameters of an MR sequence."""
    if {"EP", "DIFFUSION", "ADC"} & set(sequence.codes):
        return None
    echo, repetition = sequence.echo_ms, sequence.repetition_ms
    if echo is None or repetition is None:
        return None
    base = _weighting(echo, repetition, sequence)
    return "t1c" if base == "t1" and sequence.agent else base


def _weighting(echo: float, repetition: float, sequence: Sequence) -> Contrast | None:
    inversion = sequence.inversion_ms or 0.0
    if inversion >= 1500 and echo >= 60:
        return "flair"
    if "GR" in sequence.codes and "SE" not in sequence.codes:
        inverted = inversion >= 500 and echo < 10
        spoilt = repetition < 60 and echo < 10 and (sequence.flip_deg or 0.0) >= 12
        return "t1" if inverted or spoilt else None
    if echo >= 60 and repetition >= 2000:
        return "t2"
    if echo < 30 and repetition <= 1000:
        return "t1"
    return "pd" if echo < 40 and repetition >= 1800 and not inversion else None


def refined(by_sequence: Contrast | None, by_name: Contrast | None) -> Contrast | None:
    """Prefer the sequence, unless the name says the same and more: an agent, suppressed fluid.

    Anonymisers remove the attributes of the agent, and some scanners do not state the inversion.
    """
    more = {"t1": "t1c", "t2": "flair"}
    if by_sequence is None or (by_name is not None and more.get(by_sequence) == by_name):
        return by_name
    return by_sequence


def from_sidecar(entries: Mapping[str, object]) -> Contrast | None:
    """Guess from the JSON beside an image, as dcm2niix and BIDS write it: times in seconds.

    Parameters
    ----------
    entries
        Of any origin; what is of another type counts as missing.
    """
    if entries.get("Modality") == "CT":
        return "ct"

    def number(name: str, scale: float = 1.0) -> float | None:
        value = entries.get(name)
        return float(value) * scale if isinstance(value, (int, float)) else None

    codes = [entries.get("ScanningSequence"), entries.get("ImageType")]
    words = re.findall(r"\w+", " ".join(str(code) for code in codes))
    sequence = Sequence(
        echo_ms=number("EchoTime", 1000.0),
        repetition_ms=number("RepetitionTime", 1000.0),
        inversion_ms=number("InversionTime", 1000.0),
        flip_deg=number("FlipAngle"),
        codes=frozenset(words),
        agent=bool(entries.get("ContrastBolusAgent") or entries.get("ContrastBolusIngredient")),
    )
    return from_sequence(sequence)
