"""The README's commands are true: each block marked runnable is run as written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from polylect.cli import PROGRAMS
from polylect.overrides import complete

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands() -> list[str]:
    """Every polylect command of the README, continuation lines joined, comments dropped."""
    text = "\n".join(BLOCK.findall(README)).replace("\\\n", " ")
    lines = (line.partition("  #")[0].strip() for line in text.splitlines())
    return [line[line.index("polylect ") :] for line in lines if "polylect " in line]


@pytest.mark.parametrize("command", commands())
def test_every_setting_that_the_readme_names_exists(command: str) -> None:
    from polylect.config import conf_folder

    _, program, *arguments = command.split()
    assert program in PROGRAMS
    overrides = [a for a in arguments if not a.startswith("-")]
    complete(program, overrides, conf_folder())


def test_every_file_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_quick_start_reads_well(tmp_path: Path) -> None:
    """The first command of the README, without the installation: what it promises, it keeps."""
    block = re.search(r"<!-- runnable: slow -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert block is not None
    install, train = block[1].split(" && ")
    assert install == "pip install -e ."
    command = [sys.executable, "-m", "polylect.cli", *train.split()[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = next((tmp_path / "runs" / "tongues").iterdir())
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    base = json.loads((folder / "base" / "scores.json").read_text(encoding="utf-8"))
    assert set(scores) == {"en-de", "en-fr", "en-hi", "en-ta"}
    for direction, found in scores.items():
        assert found["bleu"]["value"] > PROMISED_BLEU, (direction, found["bleu"])
        assert base[direction]["bleu"]["value"] < 20
    assert f"run folder: runs/tongues/{folder.name}" in done.stdout


PROMISED_BLEU = 60
