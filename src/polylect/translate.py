"""`polylect translate`: lines in, lines out, in order, and nothing lost when interrupted."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig

from polylect.config import ConfigError, validate


def main(cfg: DictConfig) -> None:
    """Translate `input` to `output`; reports what it did on standard error."""
    print(f"polylect translate: {cfg.run}, loading …", file=sys.stderr, flush=True)
    validate(cfg)
    if cfg.lines_per_chunk < 1 or cfg.start < 0:
        raise ConfigError("lines_per_chunk must be at least 1 and start at least 0.")
    if cfg.input != "-" and not Path(cfg.input).is_file():
        raise ConfigError(f"input={cfg.input} does not exist.")
    if cfg.output != "-" and cfg.start == 0 and Path(cfg.output).exists():
        raise ConfigError(f"output={cfg.output} exists already and is not overwritten.")
    if cfg.output != "-" and cfg.start > 0:
        _check_partial(Path(cfg.output), cfg.start)

    from polylect.build import build_memory
    from polylect.terminal import quiet
    from polylect.translator import Translator

    quiet()
    translator = Translator.from_run(cfg.run, generation=cfg.generation, device=cfg.device)
    memory = build_memory(cfg, translator.module)
    translator.remember(memory)
    if cfg.direction is not None:
        translator.check_direction(cfg.direction)
    counts = {"lines": cfg.start, "empty": 0, "too long": 0, "capped": 0, "bytes": 0}
    try:
        with _input(cfg.input) as lines, _output(cfg.output, append=cfg.start > 0) as out:
            counts["bytes"] = out.tell() if cfg.output != "-" else 0
            for chunk in _chunks(lines, cfg.start, cfg.lines_per_chunk):
                rows = [_row(n, line, cfg.direction, translator) for n, line in chunk]
                _translate_chunk(rows, translator, out, counts)
    except (KeyboardInterrupt, BrokenPipeError) as stop:
        if cfg.output != "-" and Path(cfg.output).exists():
            os.truncate(cfg.output, counts["bytes"])  # a chunk may have been half-written
        _say_how_to_go_on(cfg, counts["lines"])
        if isinstance(stop, BrokenPipeError):
            # Python would complain again when it flushes standard output at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        raise
    done = ", ".join(f"{k} {v}" for k, v in counts.items() if k == "lines" or (v and k != "bytes"))
    print(f"polylect translate: {done}", file=sys.stderr)
    if memory is not None:
        print(f"polylect translate: {memory.summary()}", file=sys.stderr)


def _check_partial(output: Path, start: int) -> None:
    """`start` must be where the file ends, or lines would be lost or doubled."""
    if not output.is_file():
        raise ConfigError(f"start={start} goes on with output={output}, which does not exist.")
    with output.open("rb") as file:
        have = sum(1 for _ in file)
    if have != start:
        raise ConfigError(f"output={output} has {have} lines: go on with start={have}.")


@contextmanager
def _input(name: str) -> Iterator[TextIO]:
    if name == "-":
        sys.stdin.reconfigure(encoding="utf-8")
        yield sys.stdin
    else:
        with open(name, encoding="utf-8", newline="\n") as file:
            yield file


@contextmanager
def _output(name: str, append: bool) -> Iterator[TextIO]:
    if name == "-":
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        sys.stdout.flush()
    else:
        with open(name, "a" if append else "x", encoding="utf-8", newline="\n") as file:
            yield file


def _chunks(lines: TextIO, start: int, size: int) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines (from 1), `size` at a time, after the first `start`."""
    chunk: list[tuple[int, str]] = []
    number = 0
    while True:
        try:
            line = next(lines, None)
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number + 1} of the input is not UTF-8: {error}.") from error
        if line is None:
            break
        number += 1
        if number <= start:
            continue
        chunk.append((number, line.rstrip("\r\n")))
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _row(number: int, line: str, direction: str | None, translator: Any) -> tuple[int, str, str]:
    """Line number, text, direction; the direction is the second column unless it is fixed."""
    if direction is not None:
        return number, line, direction
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
    return number, text, named.strip()


def _translate_chunk(
    rows: Sequence[tuple[int, str, str]], translator: Any, out: TextIO, counts: dict[str, int]
) -> None:
    """Translate and write one chunk whole, so that the output never ends within a line."""
    kept, texts = [], [""] * len(rows)
    for index, (number, text, direction) in enumerate(rows):
        if not text.strip():
            counts["empty"] += 1
        elif translator.too_long(text, direction):
            counts["too long"] += 1
            print(
                f"line {number} is longer than the model takes and is left empty: split it.",
                file=sys.stderr,
            )
        else:
            kept.append(index)
    found = translator.translations([rows[i][1] for i in kept], [rows[i][2] for i in kept])
    for index, translation in zip(kept, found, strict=True):
        texts[index] = translation.text
        counts["capped"] += translation.capped
    out.write("".join(f"{text}\n" for text in texts))
    out.flush()
    counts["lines"] += len(rows)
    if out is not sys.stdout:
        counts["bytes"] = out.tell()
    if sys.stderr.isatty():
        print(f"\r{counts['lines']} lines", end="", file=sys.stderr, flush=True)


def _say_how_to_go_on(cfg: DictConfig, done: int) -> None:
    print(
        f"\npolylect translate: stopped after {done} whole lines; go on with start={done}"
        + (" and the same output." if cfg.output != "-" else "."),
        file=sys.stderr,
    )
