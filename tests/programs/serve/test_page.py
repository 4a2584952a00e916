"""The page in a real browser: pip install playwright axe-playwright-python, and a Chromium.

POLYLECT_CHROMIUM names its program where `playwright install chromium` did not put it.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import DIRECTIONS, TEXTS, serving_here

from polylect.library.folder import CONFIG, WEIGHTS
from polylect.programs.serve.app import create_app
from polylect.translator import Translator

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="the page needs playwright")
PATIENCE = 60_000  # milliseconds, for machines that are busy
playwright.expect.set_options(timeout=PATIENCE)
ARABIC = "ينام الولد الصغير قرب البيت."


@pytest.fixture(scope="module")
def url(
    library: Path, make_translator: Callable[..., Translator], tmp_path_factory
) -> Iterator[str]:
    """Where a library is served, with another beside it in which en-de is what en-hi was."""
    other = tmp_path_factory.mktemp("other") / "adapters"
    shutil.copytree(library, other)
    for name in (CONFIG, WEIGHTS):
        shutil.copy(library / "en-hi" / name, other / "en-de" / name)
    beside = create_app(make_translator(other), name="other")
    with serving_here(create_app(make_translator(), name="mine", beside=beside)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(
                executable_path=os.environ.get("POLYLECT_CHROMIUM"), args=arguments
            )
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error.message.splitlines()[0]}")
        yield found
        found.close()


def is_wrong(message: Any) -> bool:
    """Whether it is an error; a request that is refused is none of the page's."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture
def page(browser, url: str) -> Iterator[Any]:
    """The page, on which nothing goes wrong and which asks nobody but its server."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
    own = (url, "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
    page.goto(url)
    playwright.expect(page.locator("#state")).to_contain_text("directions")
    yield page
    context.close()
    assert wrong == []


def translate(page: Any, texts: list[str], source: str = "en", target: str = "de") -> list[str]:
    """What stands in the first panel in the end."""
    page.select_option("#source", source)
    page.select_option("#target", target)
    page.fill("#text", "\n".join(texts))
    page.press("#text", "Control+Enter")
    playwright.expect(page.locator("#state")).to_have_text(re.compile(r"\d+ lines in"))
    return page.locator("#translation p").all_text_contents()


def accessibility(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [f"{v['id']}: {v['help']} {[n['html'] for n in v['nodes']]}" for v in found]


def test_what_the_page_shows_is_what_the_translator_says(page, offline: Translator) -> None:
    assert translate(page, [TEXTS[0], "", TEXTS[1]]) == [
        offline.translate([TEXTS[0]], "en-de")[0],
        "",
        offline.translate([TEXTS[1]], "en-de")[0],
    ]
    page.select_option("#adapter", "en-hi")
    assert translate(page, TEXTS) == offline.translate(TEXTS, "en-de", "en-hi")


def test_two_runs_and_two_adapters_stand_side_by_side(page, offline: Translator) -> None:
    other = page.locator("#other-translation p")
    page.select_option("#beside", "run:")
    assert translate(page, TEXTS) == offline.translate(TEXTS, "en-de")
    assert other.all_text_contents() == offline.translate(TEXTS, "en-de", "en-hi")
    assert page.locator("#other-label").text_content() == "other, LoRALibrary"
    for value, adapter in (("adapter:en-fr", "en-fr"), ("adapter:", "")):
        page.select_option("#beside", value)
        translate(page, TEXTS)
        assert other.all_text_contents() == offline.translate(TEXTS, "en-de", adapter)
    page.select_option("#beside", "")
    assert not page.locator("#other").is_visible()


def test_colours_say_who_wrote_each_token(page) -> None:
    page.check("#colours")
    plain = translate(page, TEXTS)
    tokens = page.locator("#translation p").first.locator(".token")
    assert "".join(tokens.all_text_contents()) == plain[0]
    assert page.locator("#legend li").all_text_contents() == ["en-de"]
    assert tokens.first.get_attribute("title") == "en-de 100 %"
    colour = "e => getComputedStyle(e).backgroundColor"
    assert tokens.first.evaluate(colour) == page.locator("#legend .token").evaluate(colour)
    assert page.locator("#translation p").first.get_attribute("aria-description") == "en-de 100 %"


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("a.txt", "We read.\n\nSee {it} now.\n", ["{it}"]),
        ("a.tsv", "1\tWe read.\n2\tA cat.\n", ["1\tWe read.\t", "2\tA cat.\t"]),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n<i>We read.</i>\n", ["<i>", "</i>", "--> 0"]),
        ("a.md", "# We read\n\n`code` and [a cat](x.md)\n", ["# ", "`code`", "](x.md)"]),
        (
            "a.tmx",
            '<tmx><tu><tuv xml:lang="en"><seg>We <ph x="1"/>read.</seg></tuv></tu></tmx>',
            ['<ph x="1"/>', 'xml:lang="de"'],
        ),
    ],
)
def test_a_file_is_translated_and_saved(page, tmp_path: Path, name, content, kept) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    page.select_option("#source", "en")
    page.select_option("#target", "de")
    page.set_input_files("#file", tmp_path / name)
    if name == "a.tsv":
        page.fill("#column", "2")
    page.click("#file-go")
    playwright.expect(page.locator("#state")).to_contain_text(f"{name} in")
    with page.expect_download() as saving:
        page.keyboard.press("Enter")  # what can be saved has the focus
    assert saving.value.suggested_filename == name.replace(".", ".de.")
    saved = Path(saving.value.path()).read_text(encoding="utf-8")
    assert saved != content and all(part in saved for part in kept), saved


def test_a_file_that_is_refused_says_why(page, tmp_path: Path) -> None:
    for name, content, sentence in (
        ("a.tmx", b"<html/>", "the file is no TMX: it begins with <html>."),
        ("a.txt", b"\xff\xfe\xff", "a.txt is no text in UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        page.select_option("#source", "en")
        page.set_input_files("#file", tmp_path / name)
        page.click("#file-go")
        playwright.expect(page.locator("#state")).to_have_text(sentence)


def test_history_is_in_the_browser_and_can_be_forgotten(page) -> None:
    first = translate(page, TEXTS)
    translate(page, TEXTS[:1], target="hi")
    page.reload()
    items = page.locator("#history button")
    playwright.expect(items).to_have_count(2)
    items.nth(1).click()
    assert page.locator("#translation p").all_text_contents() == first
    assert page.input_value("#text") == "\n".join(TEXTS)
    page.click("#forget")
    page.reload()
    playwright.expect(page.locator("#history-section")).to_be_hidden()


def test_the_keyboard_is_enough(page) -> None:
    translate(page, TEXTS)
    page.locator(".skip").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id"))
    wanted = ["source", "target", "adapter", "beside", "colours", "text", "translation", "go"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    assert {"copy", "save", "file", "forget"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_narrow_and_wide_dark_and_light_pages_are_accessible(
    page, tmp_path: Path, scheme: str, width: int
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.check("#colours")
    page.select_option("#beside", "run:")
    translate(page, [*TEXTS, "A" * 200])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert accessibility(page) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_text_runs_in_its_own_direction(page) -> None:
    direction = "e => getComputedStyle(e).direction"
    page.fill("#text", ARABIC)
    assert page.locator("#text").evaluate(direction) == "rtl"
    page.fill("#text", "वह पढ़ता है।")
    assert page.locator("#text").evaluate(direction) == "ltr"
    page.evaluate(
        "() => localStorage.setItem('polylect.history', JSON.stringify("
        "[{text: 'a', translation: 'ينام\\nWe', target: 'de'}]))"
    )
    page.reload()
    page.click("#history button")
    lines = page.locator("#translation p")
    assert [lines.nth(i).evaluate(direction) for i in range(2)] == ["rtl", "ltr"]


def test_a_key_that_is_wanted_is_asked_for(browser, make_translator) -> None:
    with serving_here(create_app(make_translator(), keys=["secret"])) as url:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        playwright.expect(page.locator("#state")).to_contain_text("wants an API key")
        page.fill("#key", "secret")
        page.press("#key", "Tab")
        playwright.expect(page.locator("#state")).to_contain_text(f"{len(DIRECTIONS)} directions")
        page.close()
