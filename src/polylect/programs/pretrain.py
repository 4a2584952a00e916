"""`polylect pretrain`: a small base model and its tokenizer, from text."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.run.record import Record


def main(cfg: DictConfig) -> float:
    """Read the text, train, write a Hugging Face folder; returns the mean validation loss."""
    validate(cfg)
    out = Path(cfg.out)
    print(f"polylect pretrain: {out}, reading text …", flush=True)
    if out.exists():
        raise ConfigError(f"out={out} exists already and is not overwritten.")
    for folder in out.parents:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"out={out} cannot be made: {folder} is a file.")
    if not cfg.languages:
        raise ConfigError("languages is empty: name at least one, as in languages=[en,sw].")

    from polylect.data.corpora.corpus import corpora
    from polylect.run.terminal import keep_freed_memory, quiet

    quiet()
    keep_freed_memory()
    languages = [str(code) for code in cfg.languages]
    read = corpora("text", plain(cfg.text), languages, cfg.root)
    texts = {code: [row.target for corpus in read[code] for row in corpus.rows()] for code in read}
    if cfg.retellings:
        texts[""] = _retellings(languages[0], cfg.retellings)
    for code, lines in texts.items():
        print(f"{code or 'two languages'}  {len(lines):,} texts")
    train = instantiate(cfg.base, "base", cfg.packages, _convert_="all")
    report = train(texts, out=out, seed=cfg.seed, log=_print_now_and_then(int(cfg.base.steps)))
    record = Record(run=str(out), config=plain(cfg), metrics=report, status="done")
    record.seconds = report["seconds"]
    record.write(out)
    losses = report["validation_nats_per_token"]
    losses_text = ", ".join(f"{code} {loss:.3f}" for code, loss in losses.items())
    print(f"{report['parameters']:,} parameters; held-out nats per token: {losses_text}\n{out}")
    return sum(losses.values()) / len(losses)


def _retellings(first: str, sizes: Mapping[str, int]) -> list[str]:
    """Return embedded texts that change language, equally many from the first to each other one."""
    from polylect.tongues import retellings

    return [text for code, n in sizes.items() for text in retellings((first, code), "train", n)]


def _print_now_and_then(steps: int, lines: int = 10):
    def log(values: dict[str, float | int]) -> None:
        if values["step"] % max(1, steps // lines) == 0 or values["step"] == steps:
            print(f"step {values['step']}/{steps}  loss {values['loss']:.3f}", flush=True)

    return log
