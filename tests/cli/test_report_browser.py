"""The report in a browser: it draws every figure, complains of nothing, and asks nobody.

Chromium is looked for on PATH and driven by playwright; where either is missing the tests skip.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import call
from report_runs import evaluate_run, train_run, write_test_faces

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DRAWN = "() => document.documentElement.dataset.drawn"
SCREENS = os.environ.get("SPHEREFACE_SCREENSHOTS")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of an evaluated run, of one that was only trained, and of both."""
    root = tmp_path_factory.mktemp("report")
    faces = write_test_faces(root / "faces")
    first, second = train_run(root / "first"), train_run(root / "second", seed=1)
    evaluate_run(first, faces)
    both = root / "both.html"
    assert call("report", second) == 0
    assert call("report", first, second, "--out", both) == 0
    return {
        "evaluated": first / "report.html",
        "trained": second / "report.html",
        "both": both,
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    api = pytest.importorskip("playwright.sync_api", reason="no driver: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


class Visit:
    """A page in a window, and what it said and asked for."""

    def __init__(self, browser: Any, page: Path, *, width: int, scheme: str, motion: str):
        self._context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion=motion
        )
        self._context.set_default_timeout(120_000)
        self.page = self._context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(page.as_uri())
        self.page.wait_for_function(DRAWN)
        if SCREENS:
            name = f"{page.parent.name}-{page.stem}-{width}-{scheme}.png"
            self.page.screenshot(path=Path(SCREENS, name), full_page=True)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.said.append(message.text)

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def visit(browser: Any, pages: dict[str, Path]) -> Any:
    def open_page(
        name: str, *, width: int = 1280, scheme: str = "light", motion: str = "reduce"
    ) -> Visit:
        return Visit(browser, pages[name], width=width, scheme=scheme, motion=motion)

    return open_page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["evaluated", "both"])
def test_every_figure_is_drawn_in_silence(visit: Any, name: str, width: int, scheme: str) -> None:
    with visit(name, width=width, scheme=scheme) as seen:
        figures = seen.ask("document.querySelectorAll('figure.plot').length")
        assert figures >= 10
        # A plot has its frame in SVG; a sphere has a canvas of WebGL.
        drawn = """() => [...document.querySelectorAll('figure.plot .canvas')].filter(
            (each) => each.querySelector('.main-svg .xy path, .gl-container canvas')).length"""
        assert seen.ask(drawn) == figures
        empty = """() => [...document.querySelectorAll('figure.plot:not(.sphere) .canvas')].filter(
            (each) => !each.querySelector('.scatterlayer .trace path')).length"""
        assert seen.ask(empty) == 0
        assert seen.said == []
        assert [url for url in seen.asked if not url.startswith("data:")] == [
            seen.page.url.partition("#")[0]
        ]
        assert seen.ask("document.documentElement.scrollWidth") <= width
        assert seen.ask("document.documentElement.dataset.theme") == scheme


def test_a_run_without_evaluation_is_silent_too(visit: Any) -> None:
    with visit("trained", width=390) as seen:
        assert seen.said == []
        assert seen.ask("document.querySelectorAll('.absent').length") >= 5


def test_the_button_changes_the_colours_of_page_and_plots(visit: Any) -> None:
    stroke = "getComputedStyle(document.querySelector('#decisions .scatterlayer .js-line')).stroke"
    with visit("evaluated") as seen:
        paper = "getComputedStyle(document.body).backgroundColor"
        before, line = seen.ask(paper), seen.ask(stroke)
        seen.page.click("#theme")
        seen.page.wait_for_function(f"(line) => {stroke} !== line", arg=line)
        assert seen.ask("document.documentElement.dataset.theme") == "dark"
        assert seen.ask(paper) != before
        assert seen.said == []


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_sphere_turns_unless_motion_is_unwelcome(visit: Any, motion: str) -> None:
    eye = "JSON.stringify(document.querySelector('.sphere .canvas').layout.scene.camera.eye)"
    with visit("evaluated", motion=motion) as seen:
        seen.page.locator(".sphere .canvas").first.scroll_into_view_if_needed()
        button = seen.page.locator(".spin").first
        assert button.text_content() == ("Turn" if motion == "reduce" else "Pause")
        before = seen.ask(eye)
        if motion == "reduce":
            seen.page.wait_for_timeout(1500)
            assert seen.ask(eye) == before
        else:
            seen.page.wait_for_function(f"(before) => {eye} !== before", arg=before)
        button.click()
        assert (button.text_content() == "Pause") == (motion == "reduce")


def test_every_picture_and_figure_is_described(visit: Any) -> None:
    with visit("evaluated") as seen:
        assert seen.ask("[...document.images].every((each) => each.alt.length > 3)")
        labels = seen.ask(
            "[...document.querySelectorAll('.canvas')].map((each) => each.ariaLabel ?? '')"
        )
        assert all(len(label) > 20 for label in labels)
        assert seen.ask("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(visit: Any, scheme: str) -> None:
    """WCAG's contrast: 4.5 for text, 3 for lines."""
    with visit("evaluated", scheme=scheme) as seen:
        tones = {
            name: seen.ask(f"getComputedStyle(document.body).getPropertyValue('--{name}').trim()")
            for name in (
                "paper",
                "panel",
                "ink",
                "soft",
                "accent",
                *(f"tone-{n}" for n in range(8)),
            )
        }
    for ground in ("paper", "panel"):
        for name in ("ink", "soft", "accent"):
            assert contrast(tones[name], tones[ground]) >= 4.5, (name, ground)
        for number in range(8):
            assert contrast(tones[f"tone-{number}"], tones[ground]) >= 3, (number, ground)


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted(map(luminance, (first, second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
