"""What READMEs, scripts, settings, notebooks and records name in experiments/ is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"experiments/[\w./-]*\w\.(?:py|sh|md)\b")
FOLDERS = ("conf", "experiments", "notebooks", "src")
KINDS = {".ipynb", ".json", ".md", ".py", ".sh", ".yaml"}


def test_named_files_of_the_experiments_exist() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    named = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in [*ROOT.glob("*.md"), *files]
        if file.suffix in KINDS
        for name in NAMED.findall(file.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    }
    assert sorted(named) == []
