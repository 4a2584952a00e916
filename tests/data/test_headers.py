"""Names of columns and fields that say which side they are."""

import pytest

from polylect.data.corpora.headers import SideNames
from polylect.data.languages import split_direction


def names(direction: str, **corpus_codes: str) -> SideNames:
    source, target = split_direction(direction)
    codes = {"target": target} if source is None else {"source": source, "target": target}
    return SideNames(codes, codes | corpus_codes)


@pytest.mark.parametrize(
    ("direction", "header", "columns"),
    [
        ("en-de", "en de", (0, 1)),
        ("en-de", "id de en", (2, 1)),
        ("en-de", "DE EN", (1, 0)),
        ("en-de", "English German", (0, 1)),
        ("en-de", "eng_Latn deu_Latn", (0, 1)),
        ("en-de", "eng ger", (0, 1)),
        ("en-de", "en-US de-AT", (0, 1)),
        ("en-de", "source target", (0, 1)),
        ("en-de", "id src tgt score", (1, 2)),
        ("en-de", "target source", (1, 0)),
        ("en-de", "sentence_en sentence_de", (0, 1)),
        ("en-de", "translation.en translation.de", (0, 1)),
        ("en-de", "source_text target_text", (0, 1)),
        ("en-de", "source target en de", (2, 3)),  # a language says more than a role
        ("en-de", "source_lang target_lang source target", (2, 3)),
        ("hi-ne", "npi_Deva hin_Deva", (1, 0)),
        ("en-pt_BR", "en pt pt-BR", (0, 2)),
        ("en-pt_BR", "en pt", (0, 1)),
        ("pt-pt_BR", "pt_BR pt", (1, 0)),
        ("en-zh_Hant", "en zh_Hant", (0, 1)),
        ("en-zh_Hans", "en zh-TW zh-CN", (0, 2)),
        ("en-sr_Latn", "en sr-Cyrl-RS sr-Latn-RS", (0, 2)),
        ("en-nb", "English Norwegian_Bokmål", (0, 1)),
        ("qaa-qab", "qab qaa", (1, 0)),
        # no headers
        ("en-de", "Hello Hallo", None),
        ("en-de", "en fr", None),
        ("en-de", "en en", None),
        ("en-de", "source de_facto", None),
        ("en-pt_BR", "en pt-PT", None),
        ("en-de", "1276 eng 77 deu", None),  # a row of numbers and codes
        ("it-no", "is so", None),
    ],
)
def test_a_header_names_both_sides(
    direction: str, header: str, columns: tuple[int, int] | None
) -> None:
    actual = names(direction).header(header.split())
    assert actual == (
        {} if columns is None else dict(zip(("source", "target"), columns, strict=True))
    )


def test_a_corpus_may_have_codes_of_its_own() -> None:
    assert names("en-de", target="dt").header(["en", "dt"]) == {"source": 0, "target": 1}


def test_monolingual_text_has_a_name_of_its_own() -> None:
    assert names("de").header(["id", "text"]) == {"target": 1}
    assert names("de").header(["text", "German"]) == {"target": 1}
    assert names("de").header(["Text ohne Namen"]) == {}


@pytest.mark.parametrize(
    ("direction", "header", "lacks"),
    [
        ("en-de", "en fr", True),
        ("en-de", "id English French", True),
        ("en-pt_BR", "en pt-PT", True),
        ("en-de", "sentence_en sentence_fr", True),
        ("en-de", "en de", False),  # nothing is lacking
        ("en-de", "en en", False),
        ("en-de", "source fr", False),
        ("en-de", "1 en fr", False),
        ("it-no", "is so", False),  # words
        ("en-de", "Hello Hallo", False),
        ("de", "en fr", False),
    ],
)
def test_a_header_may_lack_a_side(direction: str, header: str, lacks: bool) -> None:
    assert names(direction).lacks_a_side(header.split()) is lacks
