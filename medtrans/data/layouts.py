"""Layouts: how a public data set, or your own, names its files, as a TOML file of patterns.

A layout says for each path below the data set's folder whose image it is and what it shows, or why
it is left out. The first rule that fits counts. data_manifests/ has those of public sets.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from medtrans.config.terms import Contrast, nearest
from medtrans.data.manifest_checks import SPLITS
from medtrans.errors import ConfigError
from medtrans.system.resources import shipped

_MAX_BYTES = 1 << 20


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
    return pattern


def _is_split(name: str) -> str:
    if name and name not in SPLITS:
        raise ValueError(f"{name!r} is no split; known are {', '.join(SPLITS)}")
    return name


Pattern = Annotated[str, AfterValidator(_compiles)]
Split = Annotated[str, AfterValidator(_is_split)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VolumeRule(_Strict):
    """Whose image a path is.

    Attributes
    ----------
    path : str
        Regular expression that is searched in the path below the data set's folder, with ``/`` on
        every system. Its named groups may stand in braces in the other entries.
    subject, session : str
        For instance ``"{subject}"`` or ``"ct-{number}"``.
    contrast : Contrast or None
        None: the group ``contrast`` by the layout's table; without that group, what the file says.
    split : str
        Empty where the layout does not split.
    """

    path: Pattern
    subject: str = "{subject}"
    session: str = ""
    contrast: Contrast | None = None
    split: Split = ""

    @model_validator(mode="after")
    def _groups_are_there(self) -> VolumeRule:
        known = re.compile(self.path).groupindex
        for text in (self.subject, self.session):
            for name in re.findall(r"{(.*?)}", text):
                if name not in known:
                    raise ValueError(f"the pattern has no group (?P<{name}>…) for {text!r}")
        return self


class LeftOutRule(_Strict):
    """Which paths are left out, and why: a few words."""

    path: Pattern
    why: str


class Match(NamedTuple):
    """What a layout says of a path; `why` is empty unless the path is left out."""

    subject: str = ""
    session: str = ""
    contrast: Contrast | None = None
    split: str = ""
    why: str = ""


class Layout(_Strict):
    """A data set's layout.

    Attributes
    ----------
    name : str
    volumes : tuple of VolumeRule
    left_out : tuple of LeftOutRule
        Tried before `volumes`.
    contrasts : dict
        What the group ``contrast`` of a pattern may match, with the contrast that it is.
    expected : dict
        Counts of the whole data set: "subjects", or a contrast.
    """

    name: str
    volumes: tuple[VolumeRule, ...] = Field(min_length=1)
    left_out: tuple[LeftOutRule, ...] = ()
    contrasts: dict[str, Contrast] = {}
    expected: dict[str, int] = {}

    def match(self, path: str) -> Match:
        """Apply the first rule that fits a path below the data set's folder.

        Parameters
        ----------
        path
            With ``/`` between its parts.
        """
        for refusal in self.left_out:
            if re.search(refusal.path, path):
                return Match(why=refusal.why)
        for rule in self.volumes:
            if found := re.search(rule.path, path):
                groups = {name: text or "" for name, text in found.groupdict().items()}
                contrast = rule.contrast or self.contrasts.get(groups.get("contrast", ""))
                return Match(
                    rule.subject.format_map(groups),
                    rule.session.format_map(groups),
                    contrast,
                    rule.split,
                )
        return Match(why=f"no rule of the layout {self.name} fits its path")


def read_layout(source: str) -> Layout:
    """Read a layout.

    Parameters
    ----------
    source
        The name of a shipped one (``"ixi"``), or the path of a TOML file.

    Raises
    ------
    ConfigError
        If there is none, or it is no layout; the sentence says which entry.
    """
    path = (
        Path(source) if source.endswith(".toml") else shipped("data_manifests") / f"{source}.toml"
    )
    if not path.is_file():
        known = shipped_layouts()
        raise ConfigError(
            f"There is no layout '{source}'{nearest(source, known)}; shipped are "
            f"{', '.join(known)}. For other data, write a TOML file (docs/manifest.md) and give "
            "its path."
        )
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: a layout has at most {_MAX_BYTES} bytes. Shorten it.")
        return Layout.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the layout"
        raise ConfigError(f"{path}: {where}: {first['msg']}. Correct the entry.") from None


def shipped_layouts() -> list[str]:
    """Names of the layouts that come with medtrans."""
    return sorted(path.stem for path in shipped("data_manifests").glob("*.toml"))
