"""The commands that documents show, taken out of their texts."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(polylect \w+ [^`\n]+)`")
_EXAMPLES = re.compile(r"^ +Examples:\n(.*)", re.DOTALL | re.MULTILINE)


def documented_commands() -> list[tuple[str, str]]:
    """File and command, for every polylect command of READMEs, help and comments of settings."""
    commands = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("experiments/**/*.md")]):
        text = path.read_text(encoding="utf-8")
        for block in [*_BLOCK.findall(text), *_indented(text)]:
            commands += [(path, command) for command in _commands(block)]
        commands += [(path, command) for command in _inline(text)]
    for path in sorted(ROOT.glob("conf/**/*.yaml")):
        text = path.read_text(encoding="utf-8")
        for block in _EXAMPLES.findall(text):
            commands += [(path, command) for command in _commands(block)]
        comments = " ".join(re.findall(r"# *(.*)", text))
        commands += [(path, command) for command in _inline(comments)]
    return [(path.relative_to(ROOT).as_posix(), command) for path, command in commands]


def _inline(text: str) -> list[str]:
    """Commands within prose, without those that only say how commands look."""
    return [c for c in _INLINE.findall(text) if "…" not in c and " | " not in c]


def _indented(text: str) -> Iterator[str]:
    """Lines that are indented as code is in Markdown."""
    yield from re.findall(r"^ {4}polylect .*$", text, re.MULTILINE)


def _commands(block: str) -> Iterator[str]:
    """The commands of ours in shell text: continued lines joined, comments and others dropped."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|(?<!')\|(?!')", re.sub(r"\s#.*", "", line)):
            if (begin := re.match(r"\s*(?:[A-Z_]+=\S+ )*(polylect .*)", part)) is not None:
                yield " ".join(begin[1].split())


def words(command: str) -> list[str]:
    """Program and arguments, without `polylect`."""
    return shlex.split(command)[1:]
