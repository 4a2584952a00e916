"""Golden outputs, made again."""

from collections.abc import Callable, Sequence
from typing import Any

from polylect.data.text import one_line
from polylect.run.passport.file import GoldenOutput, Passport
from polylect.run.passport.golden import decoding, translate_alone
from polylect.run.record import environment
from polylect.run.verify.check import Check, not_checked


def check_outputs(module: Any, passport: Passport, how: str, adapter: str | None = None) -> Check:
    """Translate the golden prompts one by one and compare texts, lengths and caps.

    Args:
        how: they are translated, such as "the adapters".
        adapter: that all of them go through; None takes that of their direction.
    """

    def again(output: GoldenOutput) -> tuple[str, int, bool]:
        made = translate_alone(module, output.prompt, output.direction, adapter)
        return made.text, made.tokens, made.capped

    with decoding(module, passport.decoding):
        return compare_outputs(passport.golden, again, how, _elsewhere(passport))


def compare_outputs(
    golden: Sequence[GoldenOutput],
    again: Callable[[GoldenOutput], tuple[str, int | None, bool | None]],
    how: str,
    elsewhere: str = "",
) -> Check:
    """Compare golden outputs with what comes out now.

    Args:
        again: makes text, number of tokens and whether the cap was hit; None where that is not
            known.
        elsewhere: what is different here, for the sentences.
    """
    name = f"golden outputs from {how}"
    if not golden:
        return not_checked(name, "the passport has none: no direction is one of translation")
    faults = []
    for output in golden:
        text, tokens, capped = again(output)
        same = tokens in (None, output.tokens) and capped in (None, output.capped)
        if one_line(text) != output.text or not same:
            faults.append(
                f"{how}: {output.direction} {output.source!r} gives {text!r} ({tokens} tokens), "
                f"the passport has {output.text!r} ({output.tokens}){elsewhere}."
            )
    tokens = sum(output.tokens for output in golden)
    directions = len({output.direction for output in golden})
    numbers = f"{len(golden)} sentences in {directions} directions, {tokens} tokens"
    return Check(name, numbers, tuple(faults))


def _elsewhere(passport: Passport) -> str:
    """What is different on this machine, as a clause; empty where nothing is."""
    here, then = environment(), passport.made
    unlike = [f"{then['device']} then, {here['device']} now"] * (here["device"] != then["device"])
    unlike += [
        f"{name} {version} then, {here['packages'].get(name)} now"
        for name, version in then["versions"].items()
        if name in ("torch", "transformers") and version != here["packages"].get(name)
    ]
    return f"; {', '.join(unlike)}, which may decide a near tie" if unlike else ""
