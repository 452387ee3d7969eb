"""The page in a browser: the right pixels in the right place, by mouse, by keyboard, on a phone.

Needs playwright and a Chromium.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtrans.report.page import Page, save_page
from medtrans.report.pictures import upright
from medtrans.report.scene import MAPS, Scene, Shown, arrange, others
from tests.report import builders
from tests.report.tabs import PHONE, Tab, contrast, luminance

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SIDES = ("left", "right", "top", "bottom")
LONG = ("a" * 64, "http://" + "long" * 30)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return builders.scene(*builders.NAMES, affine=np.diag([1.0, 1.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def file(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    sections = {"How it was made": dict(zip(("Model SHA256", "Note"), LONG, strict=True))}
    save_page(path, Page("Synthetic T2 from T1", scene, ["it is " + "odd" * 40], sections))
    return path


class Viewer(Tab):
    """A page whose planes can be moved through."""

    def ready(self) -> Viewer:
        self.tab.wait_for_selector("#viewer:not([hidden])")
        return self

    def settle(self) -> None:
        """Wait for what was asked to be drawn."""
        self.tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)
        self.settle()

    def canvas(self, plane: str, role: str = "source") -> Any:
        return self.tab.locator(f'canvas[data-plane="{plane}"][data-role="{role}"]')

    def pixels(self, plane: str, role: str = "source") -> np.ndarray:
        """Red, green and blue of what is drawn, (height, width, 3)."""
        flat = self.canvas(plane, role).evaluate(
            "c => [c.height, c.width, ...c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data]"
        )
        return np.array(flat[2:]).reshape(*flat[:2], 4)[:, :, :3]

    def slider(self, plane: str) -> Any:
        return self.tab.locator(f'input[data-plane="{plane}"]')

    def slice(self, plane: str) -> int:
        return int(self.slider(plane).input_value())

    def roles(self) -> list[str]:
        """What the axial planes show."""
        every = self.tab.locator('canvas[data-plane="axial"]').all()
        return [canvas.get_attribute("data-role") for canvas in every if canvas.is_visible()]

    def drag(self, plane: str, by: tuple[int, int], role: str = "source") -> None:
        self.canvas(plane, role).scroll_into_view_if_needed()
        box = self.canvas(plane, role).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.tab.mouse.move(x, y)
        self.tab.mouse.down()
        self.tab.mouse.move(x + by[0], y + by[1], steps=3)
        self.tab.mouse.up()
        self.settle()

    def click(self, plane: str, column: int, row: int) -> None:
        """Click in the middle of a voxel of a plane."""
        canvas = self.canvas(plane)
        box = canvas.bounding_box()
        width, height = canvas.evaluate("c => [c.width, c.height]")
        place = {
            "x": (column + 0.5) * box["width"] / width,
            "y": (row + 0.5) * box["height"] / height,
        }
        canvas.click(position=place)
        self.settle()

    def readout(self) -> str:
        return self.tab.locator("#readout").inner_text()


@pytest.fixture
def viewer(browser: Any, file: Path) -> Iterator[Viewer]:
    found = Viewer(browser, file).ready()
    yield found
    assert found.troubles == []
    found.context.close()


def shown(scene: Scene, role: str) -> Shown:
    [one] = [shown for shown in scene.shown if shown.layer.role == role]
    return one


def expected(scene: Scene, plane: str, role: str, number: int) -> np.ndarray:
    """Grey levels of the slice that counts `number` from the right, the back or the feet."""
    axis = AXES[plane]
    index = scene.shape[0] - number if axis == 0 else number - 1
    grey = np.clip(shown(scene, role).grey(), 0, 1) * 255
    return upright(np.take(grey, index, axis))


def test_it_loads_without_a_word_and_without_a_network(viewer: Viewer, file: Path) -> None:
    assert viewer.requests[0] == file.as_uri()[:40]
    assert all(url.startswith("data:image/png") for url in viewer.requests[1:])
    assert not viewer.tab.locator("#still").is_visible()
    assert viewer.roles() == list(builders.NAMES)


@pytest.mark.parametrize("plane", AXES)
def test_the_right_pixels_are_shown(viewer: Viewer, scene: Scene, plane: str) -> None:
    for role in ("source", "synthetic", "reference"):
        drawn = viewer.pixels(plane, role)
        assert np.ptp(drawn, axis=2).max() == 0  # grey
        wanted = expected(scene, plane, role, viewer.slice(plane))
        assert drawn.shape[:2] == wanted.shape
        assert np.abs(drawn[:, :, 0] - wanted).max() <= 1
    for role in MAPS:
        dark = expected(scene, plane, role, viewer.slice(plane)) == 0
        drawn = viewer.pixels(plane, role)
        assert drawn[dark].max() == 0
        assert np.ptp(drawn, axis=2).max() > 50


@pytest.mark.parametrize(
    ("plane", "ends", "number", "place"),
    [
        ("axial", "RLAP", 8, (4, 3)),
        ("coronal", "RLSI", 10, (4, 3)),
        ("sagittal", "APSI", 4, (4, 4)),
    ],
)
def test_right_is_left_and_the_nose_or_the_top_is_up(
    viewer: Viewer, plane: str, ends: str, number: int, place: tuple[int, int]
) -> None:
    """The brightest voxel is 9, 9, 7 of 13 x 14 x 12: to the patient's right, front and top."""
    viewer.tab.locator("#width").fill("400")
    viewer.slider(plane).fill(str(number))
    viewer.settle()
    drawn = viewer.pixels(plane)[:, :, 0]
    assert np.argwhere(drawn == drawn.max()).tolist() == [list(place)]
    box = viewer.tab.locator(f".box:has(canvas[data-plane={plane}])").first
    assert [box.locator(f".end.{side}").inner_text() for side in SIDES] == list(ends)


@pytest.mark.parametrize("plane", AXES)
def test_the_slider_moves_the_picture(viewer: Viewer, scene: Scene, plane: str) -> None:
    before, number = viewer.pixels(plane), viewer.slice(plane)
    viewer.slider(plane).press("ArrowRight")
    viewer.settle()
    after = viewer.pixels(plane)
    assert viewer.slice(plane) == number + 1
    assert not np.array_equal(before, after)
    assert np.abs(after[:, :, 0] - expected(scene, plane, "source", number + 1)).max() <= 1
    said = f"{plane} slice {number + 1} of {scene.shape[AXES[plane]]}"
    assert viewer.slider(plane).get_attribute("aria-valuetext") == said
    assert viewer.canvas(plane).get_attribute("aria-label") == f"Source T1, {said}"


def test_a_click_moves_the_crosshair_in_all_planes(viewer: Viewer, scene: Scene) -> None:
    viewer.click("axial", 8, 7)
    x, y = scene.shape[0] - 1 - 8, scene.shape[1] - 1 - 7  # from the patient's left and back
    z = viewer.slice("axial") - 1
    assert viewer.slice("sagittal") == 9
    assert viewer.slice("coronal") == y + 1
    for role, name in builders.NAMES.items():
        value = shown(scene, role).voxels[x, y, z]
        assert f"{name}: {value:.0f}" in viewer.readout()
    stored = (scene.from_scene @ [x, y, z, 1])[:3]
    assert "Voxel: " + ", ".join(f"{v:.0f}" for v in stored) in viewer.readout()
    mm = [f"{a if v >= 0 else b} {abs(v):.1f}" for a, b, v in zip("RAS", "LPI", stored * [1, 1, 2])]  # noqa: B905
    assert " · ".join(mm) + " mm" in viewer.readout()


def test_the_keyboard_moves_the_crosshair(viewer: Viewer, scene: Scene) -> None:
    before = {plane: viewer.slice(plane) for plane in AXES}
    viewer.canvas("axial").focus()
    viewer.press("ArrowRight", "ArrowDown", "ArrowDown", "PageUp")
    assert viewer.slice("sagittal") == before["sagittal"] + 1
    assert viewer.slice("coronal") == before["coronal"] - 2
    assert viewer.slice("axial") == before["axial"] + 1
    viewer.press("r")
    assert {plane: viewer.slice(plane) for plane in AXES} == before


def test_everything_is_reached_with_the_tab_key(viewer: Viewer) -> None:
    viewer.press("1")
    reached = set()
    for _ in range(25):
        viewer.tab.keyboard.press("Tab")
        reached.add(
            viewer.tab.evaluate(
                "(e => e.id || e.dataset.plane && e.tagName + e.dataset.plane || e.name"
                " || e.tagName)(document.activeElement)"
            )
        )
        ring = viewer.tab.evaluate(
            "(e => getComputedStyle(e).outlineStyle === 'solid' || e === document.body)"
            "(document.activeElement)"
        )
        assert ring, reached
    planes = {f"{tag}{plane}" for tag in ("CANVAS", "INPUT") for plane in AXES}
    assert planes | {"flicker", "reset", "level", "width", "drag", "SUMMARY"} <= reached


def test_flicker_by_key_and_by_button(viewer: Viewer) -> None:
    viewer.press("f")
    assert viewer.roles() == ["synthetic"]
    place = viewer.canvas("axial", "synthetic").bounding_box()
    viewer.press("f")
    assert viewer.roles() == ["source"]
    assert viewer.canvas("axial", "source").bounding_box() == place
    viewer.tab.click("#flicker")
    assert viewer.roles() == ["synthetic"]
    viewer.press("g")
    assert viewer.roles() == ["reference"]
    viewer.press("4")
    assert viewer.roles() == ["error"]
    viewer.press("0")
    assert len(viewer.roles()) == 5


def test_flicker_keeps_the_place_of_the_keyboard(viewer: Viewer) -> None:
    viewer.press("1")
    viewer.canvas("coronal").focus()
    for role in ("synthetic", "source"):
        viewer.press("f")
        assert viewer.tab.evaluate("document.activeElement.dataset") == {
            "plane": "coronal",
            "role": role,
        }


def test_dragging_changes_the_window_of_both(viewer: Viewer) -> None:
    before = {role: viewer.pixels("axial", role) for role in ("source", "synthetic", "error")}
    range_text = viewer.tab.locator(".tile figcaption span").first
    text, place = range_text.inner_text(), viewer.slice("sagittal")
    viewer.drag("axial", (0, 60))  # down: a higher level
    after = {role: viewer.pixels("axial", role) for role in before}
    assert range_text.inner_text() != text
    for role in ("source", "synthetic"):
        assert after[role].mean() < 0.95 * before[role].mean()
    assert np.array_equal(after["error"], before["error"])  # maps have a window of their own
    assert viewer.slice("sagittal") == place
    viewer.press("r")
    assert np.array_equal(viewer.pixels("axial"), before["source"])
    assert range_text.inner_text() == text
    viewer.drag("axial", (80, 0))
    low, high = (float(v) for v in range_text.inner_text().replace("−", "-").split(" – "))
    first, last = (float(v) for v in text.replace("−", "-").split(" – "))
    assert high - low > 1.3 * (last - first)
    assert (high + low) / 2 == pytest.approx((first + last) / 2, abs=3)


def test_dragging_moves_the_crosshair_when_asked(viewer: Viewer) -> None:
    text = viewer.tab.locator(".tile figcaption span").first.inner_text()
    place = viewer.slice("sagittal")
    viewer.tab.check('input[value="crosshair"]')
    viewer.drag("axial", (40, 0))
    assert viewer.slice("sagittal") > place
    assert viewer.tab.locator(".tile figcaption span").first.inner_text() == text


def test_window_by_keyboard(viewer: Viewer) -> None:
    before = viewer.pixels("axial")
    viewer.canvas("axial").focus()
    viewer.press(*["Shift+ArrowLeft"] * 5)
    assert np.ptp(viewer.pixels("axial")) >= np.ptp(before)
    assert not np.array_equal(viewer.pixels("axial"), before)
    assert int(viewer.tab.locator("#width").input_value()) < 70
    viewer.press("r")
    viewer.tab.locator("#level").press("ArrowRight")
    viewer.settle()
    assert not np.array_equal(viewer.pixels("axial"), before)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser: Any, file: Path, scheme: str) -> None:
    viewer = Viewer(browser, file, color_scheme=scheme).ready()
    paper = luminance(viewer.style("body", "backgroundColor"))
    assert (paper > 0.8) is (scheme == "light")
    for selector in ("h1", ".small", "th", "td"):
        assert contrast(luminance(viewer.style(selector, "color")), paper) > 4.5, selector
    for selector in (".notice", ".warnings", 'button[aria-pressed="true"]', ".tile"):
        ink, ground = (viewer.style(selector, name) for name in ("color", "backgroundColor"))
        assert contrast(luminance(ink), luminance(ground)) > 4.5, selector
    assert viewer.style(".tile", "backgroundColor") == "rgb(0, 0, 0)"
    assert viewer.troubles == []
    viewer.context.close()


def test_a_phone_shows_all_without_scrolling_sideways(browser: Any, file: Path) -> None:
    viewer = Viewer(browser, file, viewport=PHONE, has_touch=True, is_mobile=True).ready()
    viewer.tab.locator("summary").click()
    for key in ("0", "1", "5"):
        viewer.press(key)
        assert viewer.wide() == PHONE["width"]
    viewer.press("1")
    assert viewer.canvas("axial").bounding_box()["width"] > 150
    viewer.canvas("axial").tap(position={"x": 20, "y": 20})
    viewer.settle()
    assert viewer.slice("sagittal") < 6
    viewer.tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    notice = viewer.tab.locator(".notice")
    assert notice.bounding_box()["y"] == pytest.approx(0, abs=1)
    assert "Synthetic, not for diagnosis" in notice.inner_text()
    assert viewer.troubles == []
    viewer.context.close()


def test_without_javascript_there_is_a_picture(browser: Any, file: Path) -> None:
    viewer = Viewer(browser, file, java_script_enabled=False)
    assert viewer.tab.locator("#still img").bounding_box()["width"] > 50
    assert not viewer.tab.locator("#viewer").is_visible()
    assert viewer.tab.locator(".notice").is_visible()
    viewer.context.close()


def test_planes_are_as_long_as_in_millimetres(viewer: Viewer, scene: Scene) -> None:
    """Voxels of 1 x 1 x 2 mm; all planes on one scale."""
    scale = set()
    for plane, axis in AXES.items():
        box = viewer.canvas(plane).bounding_box()
        across, up = (scene.shape[a] * (2 if a == 2 else 1) for a in others(axis))
        scale |= {round(box["width"] / across, 1), round(box["height"] / up, 1)}
    assert max(scale) - min(scale) <= 0.2, scale


def test_a_single_slice_fits_on_the_screen(browser: Any, tmp_path: Path) -> None:
    voxels = builders.marked()[:, :, 4:5]
    layers = [builders.layer(voxels), builders.layer(voxels, role="synthetic")]
    save_page(tmp_path / "page.html", Page("T", arrange(layers)))
    viewer = Viewer(browser, tmp_path / "page.html").ready()
    assert viewer.tab.locator("section.plane").count() == 1
    assert viewer.slider("axial").is_disabled()
    for role in ("source", "synthetic"):
        box = viewer.canvas("axial", role).bounding_box()
        assert box["y"] + box["height"] < 720 + 100
    viewer.press("f")
    assert viewer.canvas("axial", "synthetic").bounding_box()["width"] <= 640
    assert viewer.troubles == []
    viewer.context.close()


def test_flicker_without_a_source_is_with_the_reference(browser: Any, tmp_path: Path) -> None:
    save_page(tmp_path / "page.html", Page("T", builders.scene("reference", "synthetic")))
    viewer = Viewer(browser, tmp_path / "page.html").ready()
    shown = []
    for _ in range(2):
        viewer.press("f")
        shown += viewer.roles()
    viewer.tab.click("#flicker")
    assert [*shown, *viewer.roles()] == ["synthetic", "reference", "synthetic"]
    viewer.close()
