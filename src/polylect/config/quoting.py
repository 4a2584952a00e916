"""Quotes where Hydra's grammar needs them and a person sees no need."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

_CLOSING = {"[": "]", "{": "}", "(": ")"}


def quote(value: str) -> str:
    """Quote every text in the value of an override that Hydra cannot take bare.

    Lists and mappings stay what they are, and so do choices of a sweep that are such: what is
    quoted stands in them, as `['strategy.gate=none']` for `[strategy.gate=none]`.

    Raises:
        ValueError: brackets or quotes of a list or mapping do not match.
    """
    if value.startswith(("[", "{")):
        choices = _split(value)
        if len(choices) > 1 and all(choice[-1:] == _CLOSING.get(choice[:1]) for choice in choices):
            return ",".join(map(quote, choices))
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(quote, _split(value[1:-1])))}]"
    if value.startswith("{") and value.endswith("}"):
        pairs = [part.partition(":") for part in _split(value[1:-1])]
        if all(colon for _, colon, _ in pairs):
            return f"{{{','.join(f'{_key(key)}:{quote(own.strip())}' for key, _, own in pairs)}}}"
    return value if _is_element(value) else QuotedString(value, Quote.single).with_quotes()


def _key(text: str) -> str:
    return text.strip(" \"'")


def _is_element(value: str) -> bool:
    try:
        return not OverridesParser.create().parse_override(f"x={value}").is_sweep_override()
    except HydraException:
        return False


def _split(text: str) -> list[str]:
    """Return the parts between commas, except commas within brackets or quotes."""
    parts, closing, quote, escaped = [""], list[str](), "", False
    for before, character in zip([" ", *text], text, strict=False):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"" and before in " ,:=[{(":  # not an apostrophe
            quote = character
        elif character in _CLOSING:
            closing.append(_CLOSING[character])
        elif character in _CLOSING.values() and (not closing or closing.pop() != character):
            raise ValueError(f"{text!r}: {character!r} closes nothing.")
        if character == "," and not closing and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if closing or quote:
        raise ValueError(f"{text!r}: {quote or closing[-1]!r} is missing.")
    return [part.strip() for part in parts] if text.strip() else []
