"""A model card for the Hugging Face hub, made of the passports and the record of a run."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polylect.data.languages import language, split_direction
from polylect.eval.table import scores_table
from polylect.run.passport.file import Passport
from polylect.run.record import Record

CARD = "README.md"
_LIBRARIES = {"adapters": "peft", "merged": "transformers", "model": "transformers"}

_ABSOLUTE = re.compile(r"(?<![\w.…])/(?:[^\s/'\"=]+/)+")
"""Folders of this machine, which are nobody's business."""


def write_card(folder: Path, form: str, run: str | None, base: str) -> str:
    """Write `folder/README.md` about the export in the folder; returns its text.

    Args:
        form: as `polylect export` has it.
        base: name of the base on the hub, or its path.
        run: the folder of the run, for what its record says; None without one.
    """
    parts = sorted(path.parent for path in folder.rglob("passport.json"))
    passports = {part: Passport.read(part) for part in parts}
    record = Record.read(Path(run)) if run and (Path(run) / "record.json").is_file() else None
    head = _metadata(passports, form, base).to_yaml()
    text = f"---\n{head}\n---\n\n{_body(passports, record)}"
    (folder / CARD).write_text(text, encoding="utf-8")
    return text


def _metadata(passports: Mapping[Path, Passport], form: str, base: str) -> Any:
    """The head of the card, by which the hub finds it. It names no licence, which nobody stated."""
    from huggingface_hub import EvalResult, ModelCardData

    directions = _directions(passports)
    results = [
        EvalResult(
            task_type="translation",
            dataset_type="own",
            dataset_name=f"test set {direction}",
            metric_type=metric,
            metric_name=f"{metric} ({score['signature']})",
            metric_value=round(score["value"], 2),
        )
        for direction, scores in _scores(passports).items()
        for metric, score in scores.items()
    ]
    return ModelCardData(
        language=sorted({code for d in directions for code in split_direction(d) if code}),
        base_model=base if base.count("/") == 1 and not Path(base).exists() else None,
        library_name=_LIBRARIES[form],
        pipeline_tag="translation",
        tags=["translation", "polylect", *(["lora"] if form == "adapters" else [])],
        model_name="polylect",
        eval_results=results or None,
    )


def _body(passports: Mapping[Path, Passport], record: Record | None) -> str:
    first = next(iter(passports.values()))
    base = first.base["name"] or "that it names"
    digest = first.base["fingerprint"] or "unknown"
    lines = [f"# Translation: {', '.join(_directions(passports))}", ""]
    for direction in _directions(passports):
        source, target = (language(code).name for code in split_direction(direction))
        lines.append(f"- {direction}: {source} into {target}")
    lines += [
        "",
        f"On the base `{base}` (fingerprint `{digest[:16]}`), trained with polylect.",
        "",
        "## How to ask",
        "",
        f"Prompts are those of polylect's template `{first.template}`, decoded greedily:",
        "",
        "| direction | prompt | translation |",
        "| --- | --- | --- |",
    ]
    for passport in passports.values():
        shown = {output.direction: output for output in reversed(passport.golden)}
        lines += [f"| {d} | {_cell(o.prompt_text)} | {_cell(o.text)} |" for d, o in shown.items()]
    scores = _scores(passports)
    if scores:
        lines += ["", "## Scores", "", scores_table(scores).markdown().rstrip()]
    lines += ["", "## Where it comes from", ""]
    if record is not None:
        made = record.environment
        command = _ABSOLUTE.sub("…/", shlex.join(record.command))
        lines += [f"    {command}", ""]
        lines.append(
            f"Commit {made.get('commit') or 'unknown'}"
            f"{' (changed)' if record.scratch else ''}, {record.started}."
        )
    for split, by_direction in first.data.items():
        hashes = [f"{d} `{own[:16]}`" for d, own in by_direction.items() if own]
        if hashes:
            lines.append(f"SHA-256 of the {split} data: {', '.join(hashes)}.")
    lines += [
        "",
        "`passport.json` has hashes of base, tokenizer, data and files, and golden outputs; "
        "`polylect verify FOLDER` holds the folder to it.",
        "",
        "No licence is named here: that of the base and that of the training text decide. Name it "
        "above as `license:` before others use this.",
    ]
    return "\n".join(lines) + "\n"


def _directions(passports: Mapping[Path, Passport]) -> list[str]:
    every = dict.fromkeys(d for passport in passports.values() for d in passport.directions)
    return [direction for direction in every if "-" in direction]


def _scores(passports: Mapping[Path, Passport]) -> dict[str, Any]:
    return {d: s for passport in passports.values() for d, s in passport.scores.items() if s}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>") or " "
