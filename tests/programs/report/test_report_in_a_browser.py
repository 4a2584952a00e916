"""The page in a real browser: on a phone, in the dark, without a network, in several scripts."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import LENGTH, MODEL

from polylect.cli import run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PAIRS = [
    ("Good day.", "يوم سعيد."),
    ("He reads 3 books.", "هو يقرأ 3 كتب."),
    ("We sing.", "نحن نغني."),
    ("The house is old.", "البيت قديم."),
]
MEASURE = """
<script>
const of = (name, what) => getComputedStyle(document.querySelector(name))[what];
const box = (element) => element.getBoundingClientRect();
const arabic = [...document.querySelectorAll('dd[lang=ar]')].filter((e) => e.textContent);
parent.postMessage(JSON.stringify({
  width: document.documentElement.clientWidth,
  scrolls: document.documentElement.scrollWidth,
  wide: [...document.querySelectorAll('.scroll')]
    .filter((e) => e.scrollWidth > e.clientWidth).length,
  outside: [...document.querySelectorAll('main > section > *, img')]
    .filter((e) => box(e).right > document.documentElement.clientWidth + 1).length,
  images: [...document.images].map((image) => image.naturalWidth),
  directions: [...new Set(arabic.map((e) => getComputedStyle(e).direction))],
  aligned: arabic.every((e) => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return Math.abs(box(range).right - box(e).right) < 2;
  }),
  paper: of('body', 'backgroundColor'),
  ink: of('body', 'color'),
  loaded: performance.getEntriesByType('resource')
    .filter((e) => !e.name.startsWith('data:')).length,
}), '*');
</script>
"""
# A window is at least 500 pixels wide, a frame in it is not.
FRAME = """
<style>
:root { color-scheme: light dark }
iframe { width: WIDTHpx; height: 900px; border: 0 }
</style>
<title></title><iframe src="report.html"></iframe>
<script>onmessage = (message) => { document.title = message.data; };</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a run of English into Arabic, with the measuring script."""
    folder = tmp_path_factory.mktemp("arabic")
    learned = [(f"He reads {n} books.", f"هو يقرأ {n} كتب.") for n in range(10, 40)]
    parts = []
    for part, pairs in (("train", learned), ("val", PAIRS), ("test", PAIRS)):
        lines = "en\tar\n" + "".join(f"{en}\t{ar}\n" for en, ar in pairs)
        (folder / f"{part}.tsv").write_text(lines, encoding="utf-8")
        path = folder / f"{part}.tsv"
        parts.append(f"data.{part}={{kind: tsv, path: {path}, header: true}}")
    settings = [*MODEL, "data=files", "data.directions=[en-ar]", "data.template=plain", *parts]
    settings += [*LENGTH, "trainer=smoke", "trainer.max_steps=2", "evaluate_base=false"]
    assert run(["train", *settings, "name=arabic", f"runs={folder}"]) == 0
    (made,) = (folder / "arabic").iterdir()
    (made / "outputs" / "en-ar.txt").write_text(
        "".join(f"{ar.replace('قديم', 'جديد')}\n" for _, ar in PAIRS), encoding="utf-8"
    )
    out = folder / "report.html"
    assert run(["report", str(made), f"out={out}", "samples=10"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<mark>جديد.</mark>" in text
    text = re.sub(r"<meta http-equiv=[^>]+>", "", text)  # which would not let the script run
    out.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    return out


def measured(page: Path, width: int, *options: str) -> dict[str, Any]:
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=20000",
    ]
    command += [f"--user-data-dir={page.parent / 'browser'}", "--window-size=1400,1000"]
    shown = subprocess.run(
        [*command, *options, "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=300, env=os.environ | {"LANG": "C.UTF-8"},
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", shown.stdout, re.DOTALL)
    assert title is not None, shown.stderr[-2000:]
    return json.loads(unescape(title[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt install chromium)")
def test_the_page_is_readable_on_a_phone_and_in_the_dark(page: Path) -> None:
    wide, phone = measured(page, 1200), measured(page, 390, "--force-dark-mode")
    for shown in (wide, phone):
        assert shown["scrolls"] == shown["width"] and shown["outside"] == 0
        assert shown["images"] and all(size > 100 for size in shown["images"])
        assert shown["directions"] == ["rtl"] and shown["aligned"]
        assert shown["loaded"] == 0, "nothing is fetched"
    assert phone["width"] == 390 and phone["wide"] > wide["wide"], "tables scroll"
    assert (wide["paper"], phone["paper"]) == ("rgb(255, 255, 255)", "rgb(22, 25, 29)")
    assert wide["ink"] != phone["ink"]
