"""`polylect translate`: lines in, lines out, in order, and nothing lost when interrupted.

Subtitles, memories and Markdown, known by the ends of their names, keep their form instead.
"""

import asyncio
import gzip
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.base_or_run import choose_strategy
from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.data.corpora.lines import decoded_lines, text_lines
from polylect.data.text import one_line
from polylect.run.processes.group import gather, join, of_all, rank, share, started_together
from polylect.run.results.output import Output

_FORMS = (".md", ".srt", ".tmx")
"""Ends of names of files that are no lines of text."""


def main(cfg: DictConfig) -> None:
    """Translate `input` to `output`; reports what it did on standard error.

    Processes that were started together share every chunk out; the first one writes.
    """
    choose_strategy(cfg)
    if rank() == 0:
        print(f"polylect translate: {cfg.run or 'base model'}, loading …", file=sys.stderr)
    validate(cfg)
    if cfg.lines_per_chunk < 1 or cfg.start < 0:
        raise ConfigError("lines_per_chunk must be at least 1 and start at least 0.")
    if cfg.input == "-" and started_together() > 1:
        raise ConfigError(
            f"input=- is read by one process, and {started_together()} were started: give a file."
        )
    if cfg.input != "-" and Path(cfg.input).is_dir():
        raise ConfigError(f"input={cfg.input} is a folder: give a file, or - for standard input.")
    if cfg.input != "-" and not Path(cfg.input).exists():
        raise ConfigError(f"input={cfg.input} does not exist.")
    if _has_form(cfg.input):
        _check_whole(cfg)
    from polylect.run.session import raise_system_exit, signal_handlers

    join()
    with (
        suppress(BrokenPipeError),  # whoever read the output has had enough
        Output(cfg.output, cfg.start) if rank() == 0 else nullcontext() as out,
        signal_handlers({signal.SIGTERM: raise_system_exit}),
    ):
        _translate(cfg, out)


def _translate(cfg: DictConfig, out: Output | None) -> None:
    from polylect.run.build import build_memory
    from polylect.run.terminal import quiet
    from polylect.run.using import translator_of

    quiet()
    translator = translator_of(cfg)
    if cfg.adapter is not None:
        translator.set_adapter(cfg.adapter)
    memory = build_memory(cfg, translator.module)
    translator.remember(memory)
    if cfg.direction is not None:
        translator.check_direction(cfg.direction)
    counts = Counter[str]()
    if _has_form(cfg.input) and out is not None:
        out.write(_translate_file(cfg, translator, counts))
        return _report(out, counts, memory)
    for chunk in _chunks(_input(cfg.input), cfg.start, cfg.lines_per_chunk):
        rows = [_row(n, line, cfg.direction, translator) for n, line in chunk]
        if cfg.direction is not None and rank() == 0:
            counts["with tabs"] += sum("\t" in line.strip() for _, line in chunk)
        texts = of_all(_translate_rows(share(rows), translator, counts))
        if out is None:
            continue
        out.write(texts)
        if sys.stderr.isatty():
            print(f"\r{out.lines} lines", end="", file=sys.stderr, flush=True)
    counts = sum(gather(counts), Counter())
    if memory is not None:
        memory.counts = _added(gather(memory.counts))
    if out is not None:
        _report(out, counts, memory)


def _report(out: Output, counts: Counter[str], memory: Any) -> None:
    named = [f"{name} {counts[name]}" for name in ("empty", "too long", "capped") if counts[name]]
    print(f"polylect translate: {', '.join([f'lines {out.lines}', *named])}", file=sys.stderr)
    if tabs := counts["with tabs"]:
        print(
            f"polylect translate: {tabs} lines with tabs were translated whole, tabs as spaces. "
            "Give a file of one column; or, if the last one is a direction, no direction=….",
            file=sys.stderr,
        )
    if memory is not None:
        print(f"polylect translate: {memory.summary()}", file=sys.stderr)


def _has_form(name: str) -> bool:
    return Path(name.removesuffix(".gz")).suffix.lower() in _FORMS


def _check_whole(cfg: DictConfig) -> None:
    """Raises ConfigError for settings of lines, beside a file that is translated whole."""
    if cfg.direction is None:
        raise ConfigError(f"input={cfg.input} is translated whole: give its direction=….")
    if cfg.start or started_together() > 1:
        why = "start= is for lines" if cfg.start else "it takes one process"
        raise ConfigError(f"input={cfg.input} is translated whole, and {why}.")


def _translate_file(cfg: DictConfig, translator: Any, counts: Counter[str]) -> list[str]:
    """Return the lines of a file in which the text is translated, and all else as it was."""
    from polylect.documents import read_document
    from polylect.documents.markup import translate_marked

    try:
        with (gzip.open if cfg.input.endswith(".gz") else open)(cfg.input, "rb") as file:
            content = file.read().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{cfg.input} is no UTF-8: convert it (iconv -t UTF-8).") from None
    document = read_document(cfg.input.removesuffix(".gz"), content, cfg.direction)

    async def ask(texts: Sequence[str]) -> list[str]:
        rows = [(number, one_line(text), cfg.direction) for number, text in enumerate(texts, 1)]
        return _translate_rows(rows, translator, counts, "sentence")

    written = document.write(asyncio.run(translate_marked(document.texts, ask)))
    return written.removesuffix("\n").split("\n")


def _added(parts: Sequence[Mapping[str, Counter[str]]]) -> dict[str, Counter[str]]:
    """Return the counts of all processes together, by direction."""
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for direction, counts in part.items():
            total.setdefault(direction, Counter()).update(counts)
    return total


def _input(name: str) -> Iterator[str]:
    """Return the lines of the input, read as those of training text are."""
    if name == "-":
        return decoded_lines(sys.stdin.buffer, "the input")
    return text_lines(Path(name))


def _chunks(lines: Iterator[str], start: int, size: int) -> Iterator[list[tuple[int, str]]]:
    """Yield numbered lines (from 1), `size` at a time, after the first `start`.

    Raises ValueError where there are fewer than `start`.
    """
    skipped = sum(1 for _ in islice(lines, start))
    if skipped < start:
        raise ConfigError(f"start={start} skips more lines than the input has: it has {skipped}.")
    numbered = enumerate(lines, start + 1)
    while chunk := list(islice(numbered, size)):
        yield chunk


def _row(number: int, line: str, direction: str | None, translator: Any) -> tuple[int, str, str]:
    """Return line number, text and direction, which is the second column unless it is fixed."""
    if direction is not None:
        return number, one_line(line), direction
    text, tab, named = line.rpartition("\t")
    if not tab:
        raise ValueError(
            f"line {number} of the input has no second column with a direction: add a tab and one "
            "of the run's directions, or set direction=… for all lines."
        )
    try:
        translator.check_direction(named.strip())
    except ValueError as error:
        raise ValueError(f"line {number} of the input: {error}") from error
    return number, one_line(text), named.strip()


def _translate_rows(
    rows: Sequence[tuple[int, str, str]],
    translator: Any,
    counts: Counter[str],
    what: str = "line",
) -> list[str]:
    """Return the translations of one chunk; empty and cut-off ones are counted."""
    indices, texts = [], [""] * len(rows)
    for index, (number, text, direction) in enumerate(rows):
        if not text:
            counts["empty"] += 1
        elif translator.too_long(text, direction):
            counts["too long"] += 1
            print(
                f"{what} {number} is longer than the model takes and is left empty: split it.",
                file=sys.stderr,
            )
        else:
            indices.append(index)
    translations = translator.translations(
        [rows[i][1] for i in indices], [rows[i][2] for i in indices]
    )
    for index, translation in zip(indices, translations, strict=True):
        texts[index] = translation.text
        counts["capped"] += translation.capped
    return texts
