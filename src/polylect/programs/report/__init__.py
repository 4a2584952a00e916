"""`polylect report RUN …`: one page on runs, recipes and sweeps, to read and to send."""

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known

TESTS = ("bootstrap", "randomization", "both")


def main(cfg: DictConfig) -> None:
    """Write the report as one page of HTML, as Markdown or as LaTeX."""
    validate(cfg)
    form, out = _check(cfg)
    from polylect.programs.report.folders import read_folders
    from polylect.programs.report.render import render

    of_groups = [folder for folders in cfg.groups.values() for folder in folders]
    found = read_folders([*cfg.folders, *of_groups])
    sections = _sections(found, cfg)
    title = cfg.title or _title(found.runs)
    commits = sorted({(run.record.environment.get("commit") or "")[:8] for run in found.runs})
    subtitle = f"{len(found.runs)} runs" if len(found.runs) > 1 else str(found.runs[0].path)
    subtitle += f", commit {', '.join(filter(None, commits)) or 'unknown'}"
    subtitle += f"; written by polylect report on {time.strftime('%Y-%m-%d')}"
    text = render(form, title, subtitle, sections, _pictures(out).name)
    _write(out, text, sections, None if form == "html" else _pictures(out))


def _check(cfg: DictConfig) -> tuple[str, Path]:
    """Check the settings that need no run; returns the form of the report, and its file."""
    from polylect.programs.report.render import FORMS

    if not cfg.folders and not cfg.groups:
        raise ConfigError("give the folders of runs, sweeps or recipes: polylect report RUN")
    check_known("test", cfg.test, TESTS)
    for name, least in (("samples", 1), ("lines", 0)):
        if cfg[name] < least:
            raise ConfigError(f"{name} must be at least {least}, got {cfg[name]}.")
    if cfg.margin is not None and not cfg.margin > 0:
        raise ConfigError(f"margin must be above 0, got {cfg.margin}.")
    if not 0 < cfg.level < 1:
        raise ConfigError(f"level must be between 0 and 1, got {cfg.level}.")
    if cfg.form is not None:
        check_known("form", cfg.form, FORMS, ConfigError)
    out = Path(cfg.out or f"report{FORMS[cfg.form or 'html']}")
    by_ending = {ending: form for form, ending in FORMS.items()}
    form = cfg.form or by_ending.get(out.suffix)
    if form is None:
        raise ConfigError(
            f"out={out} must end in .html, .md or .tex, or give form=html, markdown or latex."
        )
    if by_ending.get(out.suffix, form) != form:
        raise ConfigError(
            f"out={out} has the ending of {by_ending[out.suffix]}, and form={form} is given: "
            "leave one of them out."
        )
    made = [out] if form == "html" else [out, _pictures(out)]
    for path in made:
        if path.exists():
            raise ConfigError(f"out={out}: {path} exists: give another name, or take it away.")
    return form, out


def _pictures(out: Path) -> Path:
    """Return the folder of the pictures that Markdown and LaTeX show: report_md of report.md."""
    return out.with_name(out.name.replace(".", "_"))


def _sections(found: Any, cfg: DictConfig) -> list[Any]:
    from polylect.programs.report.matrices import ledger_section, matrices_section
    from polylect.programs.report.origin import origin_section, runs_section
    from polylect.programs.report.pictures import curves_section, routing_section
    from polylect.programs.report.samples import samples_section
    from polylect.programs.report.scores import check_metric, read_scored, scores_section

    runs = found.runs
    scored = read_scored(runs, cfg.groups)
    check_metric(scored, cfg.metric)
    sections = [runs_section(runs, found.history), scores_section(scored, runs, cfg)]
    if cfg.lines:
        sections.append(samples_section(scored, cfg.lines, cfg.packages))
    return [
        *sections,
        curves_section(runs),
        matrices_section(runs),
        ledger_section(runs),
        routing_section(runs),
        origin_section(runs),
    ]


def _title(runs: list[Any]) -> str:
    return f"Report on {runs[0].name}" if len(runs) == 1 else f"Report on {len(runs)} runs"


def _write(out: Path, text: str, sections: list[Any], pictures: Path | None) -> None:
    from polylect.files import whole_file, write_text
    from polylect.programs.report.blocks import Picture
    from polylect.programs.report.render import picture_file
    from polylect.run.record import advise_on_failure

    blocks = [block for section in sections for block in section.blocks]
    drawn = [block for block in blocks if isinstance(block, Picture)]
    with advise_on_failure("give the same command again"):
        if pictures is not None:
            for picture in drawn:
                with whole_file(pictures / picture_file(picture)) as partial:
                    partial.write_bytes(picture.png)
        write_text(out, text)
    size = f"{out.stat().st_size / 2**20:.1f} MiB"
    beside = f", in {pictures}" if pictures and drawn else ""
    print(f"written: {out}, {size}, {len(drawn)} pictures{beside}")
