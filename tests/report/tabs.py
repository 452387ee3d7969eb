"""A page in a browser's tab, with all that goes wrong in it, and what a person sees there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

PHONE = {"width": 360, "height": 740}


class Tab:
    """A page in a tab, with everything that went wrong in it."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.tab = self.context.new_page()
        self.troubles: list[str] = []
        self.tab.on("console", lambda message: self.note(message.text))
        self.tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.requests: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url[:40]))
        self.tab.goto(file.as_uri())

    def note(self, text: str) -> None:
        if "willReadFrequently" not in text:  # it is the tests that read the canvas
            self.troubles.append(text)

    def close(self) -> None:
        assert self.troubles == []
        self.context.close()

    def style(self, selector: str, name: str) -> str:
        return self.tab.locator(selector).first.evaluate(f"e => getComputedStyle(e)['{name}']")

    def wide(self) -> int:
        return int(self.tab.evaluate("document.documentElement.scrollWidth"))

    def contrast(self, selector: str, ground: str = "body", ink: str = "color") -> float:
        """Contrast of an element's ink with a background, as WCAG has it."""
        inks = luminance(self.style(selector, ink))
        return contrast(inks, luminance(self.style(ground, "backgroundColor")))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG has it."""
    values = np.array([int(v) / 255 for v in re.findall(r"\d+", colour)[:3]])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
