"""Reports as HTML, Markdown and LaTeX, through templates in which everything is escaped."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from polylect import __version__
from polylect.data.languages import language
from polylect.eval.table import Table
from polylect.programs.report.blocks import Picture, Sample, Section

FORMS = {"html": ".html", "markdown": ".md", "latex": ".tex"}
_LONG = 24  # characters of a number with its interval
_RIGHT_TO_LEFT = {"Arabic", "Hebrew", "Syriac", "Thaana", "Nko"}

# Script: name of a language in babel, and a font that has its letters.
_BABEL = {
    "Arabic": ("arabic", "Noto Naskh Arabic"),
    "Bengali": ("bengali", "Noto Serif Bengali"),
    "Cyrillic": ("russian", "Noto Serif"),
    "Devanagari": ("hindi", "Noto Serif Devanagari"),
    "Greek": ("greek", "Noto Serif"),
    "Gujarati": ("gujarati", "Noto Serif Gujarati"),
    "Gurmukhi": ("punjabi", "Noto Serif Gurmukhi"),
    "Hebrew": ("hebrew", "Noto Serif Hebrew"),
    "Kannada": ("kannada", "Noto Serif Kannada"),
    "Malayalam": ("malayalam", "Noto Serif Malayalam"),
    "Oriya": ("odia", "Noto Sans Oriya"),
    "Sinhala": ("sinhala", "Noto Serif Sinhala"),
    "Tamil": ("tamil", "Noto Serif Tamil"),
    "Telugu": ("telugu", "Noto Serif Telugu"),
    "Thai": ("thai", "Noto Serif Thai"),
}
_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\n": " ",
    **{sign: rf"{{\signs {sign}}}" for sign in "▲▼≈"},
}


class _Raw(str):
    """Text that needs no escape."""


def render(form: str, title: str, subtitle: str, sections: Sequence[Section], pictures: str) -> str:
    """Return the text of a report.

    Args:
        form: one of `FORMS`.
        title: of the report.
        subtitle: the line below it.
        sections: in their order.
        pictures: folder of the files of pictures, as the text refers to it.
    """
    template = _environment(form, pictures).get_template(f"report{FORMS[form]}.j2")
    text = template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        version=__version__,
        locales=_locales(sections),
    )
    return re.sub(r"\n{3,}", "\n\n", text) if form != "html" else text


def picture_file(picture: Picture) -> str:
    """Return the name of the file that Markdown and LaTeX show."""
    return re.sub(r"[^A-Za-z0-9=.]+", "-", picture.name).strip("-.") + ".png"


def language_tag(code: str) -> str:
    """Return the tag of a language as HTML and browsers know it (BCP 47): "pt-BR" for pt_BR."""
    return code.replace("_", "-")


def text_direction(code: str) -> str:
    """Return "rtl" for a language that is written from right to left, else "ltr"."""
    return "rtl" if language(code).scripts[:1] and _script(code) in _RIGHT_TO_LEFT else "ltr"


def wordy_columns(table: Table) -> set[int]:
    """Return the columns beside the first that hold words, not numbers."""
    return {
        i
        for i in range(1, len(table.header))
        if any(row[i][:1].isalpha() or len(row[i]) > _LONG for row in table.rows)
    }


def _script(code: str) -> str:
    return next(iter(language(code).scripts), "")


def _environment(form: str, pictures: str) -> Environment:
    signs = {"variable_start_string": "<<", "variable_end_string": ">>"}
    signs |= {"block_start_string": "<%", "block_end_string": "%>"}
    signs |= {"comment_start_string": "<#", "comment_end_string": "#>"}
    environment = Environment(
        loader=PackageLoader("polylect.programs.report"),
        autoescape=form == "html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **signs if form == "latex" else {},
    )
    if form != "html":
        escape = _escaped_markdown if form == "markdown" else _escaped_tex
        environment.finalize = _finalize(escape)
    environment.filters |= {
        "raw": _Raw,
        "wordy": wordy_columns,
        "base64": lambda content: base64.b64encode(content).decode("ascii"),
        "tag": language_tag,
        "direction": text_direction,
        "file": lambda picture: f"{pictures}/{picture_file(picture)}",
        "fence": _fence,
        "locale": lambda code: _BABEL.get(_script(code), ("",))[0] if code else "",
        "verbatim": lambda text: text.replace(r"\end{Verbatim}", r"\end {Verbatim}"),
    }
    return environment


def _finalize(escape: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: value if isinstance(value, _Raw) else escape(str(value))


def _escaped_markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", text)


def _escaped_tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def _fence(text: str) -> str:
    """Return more backticks than any that stand together in the text."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _locales(sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """Return the names, fonts and renderers of the languages that samples are in.

    HarfBuzz joins Indic letters, but turns brackets round that babel has turned round.
    """
    codes = {
        passage.language
        for section in sections
        for block in section.blocks
        if isinstance(block, Sample)
        for _, passage in block.passages
        if passage.language
    }
    return sorted(
        (*_BABEL[script], "Node" if script in _RIGHT_TO_LEFT else "HarfBuzz")
        for script in _BABEL.keys() & set(map(_script, codes))
    )
