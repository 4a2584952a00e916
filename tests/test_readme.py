"""The README's commands are true: each block marked runnable is run as written."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import CHRF

from polylect.cli import PROGRAMS
from polylect.config.overrides import resolve_overrides
from polylect.tongues import parallel

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
    from polylect.cli import _with_folders
    from polylect.config.folders import search_path
    from polylect.config.roots import conf_folder
    from polylect.programs.init import PROJECT

    _, program, *arguments = shlex.split(command.partition(" && ")[0])
    if program == "sweep":  # which has no settings
        return
    assert program in PROGRAMS
    if "sweep=optuna" in arguments:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="no hydra-optuna-sweeper")
    arguments = [a for a in arguments if not a.startswith(("hydra/launcher", "hydra.launcher"))]
    waiting, overrides = iter(arguments), []
    for argument in waiting:
        if argument == "--config-dir":
            assert next(waiting) == "conf"
            overrides.append(search_path(str(PROJECT / "conf")))
        elif argument == "--config":
            next(waiting)
        elif not argument.startswith("-"):
            overrides.append(argument)
    resolve_overrides(program, _with_folders(program, overrides), conf_folder())


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
    for direction, score in scores.items():
        assert score["bleu"]["value"] > PROMISED_BLEU, (direction, score["bleu"])
        assert base[direction]["bleu"]["value"] < 20
    assert f"run folder: runs/tongues/{folder.name}" in done.stdout


PROMISED_BLEU = 60


@pytest.mark.slow
def test_the_memory_is_of_use_as_the_readme_has_it(tmp_path: Path) -> None:
    """The commands under "Similar sentences in the prompt", held to what they reach."""
    section = README[README.index("## Similar sentences in the prompt") :]
    block = BLOCK.search(section)
    assert block is not None
    lines = [line.partition("  #")[0].split() for line in block[1].strip().splitlines()]
    assert [line[1] for line in lines] == ["train", "evaluate", "translate"]
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "memory.tsv").write_text(
        "The good queen sleeps near our house.\tDie gute Königin schläft bei unserem Haus.\n",
        encoding="utf-8",
    )

    def run(words: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        made = sorted((tmp_path / "runs" / "memory").glob("*"))
        command = [word.replace("TIME", made[0].name if made else "TIME") for word in words[1:]]
        given = [sys.executable, "-m", "polylect.cli", *command]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 1200}
        done = subprocess.run(given, input=text, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    train, evaluate, translate = lines
    run(train)
    run(evaluate)
    (trained,) = (tmp_path / "runs" / "memory").iterdir()
    (scored,) = (tmp_path / "runs" / "evaluate").iterdir()
    for folder in (trained, scored):  # without examples, and with them
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        assert set(scores) == {"en-de", "en-fr", "en-hi", "en-ta"}
        for direction, score in scores.items():
            assert score["chrf++"]["value"] > PROMISED_CHRF, (folder, direction, score["chrf++"])
            assert score["diagnosis"]["empty"]["count"] == 0
    done = run(translate, "My good friend sleeps near our house.\n")
    assert "1 of 1 sentences with a match, 1 matches shown" in done.stderr
    (line,) = done.stdout.splitlines()
    right = ["Mein guter Freund schläft bei unserem Haus."]
    assert CHRF(word_order=2).sentence_score(line, right).score > PROMISED_CHRF, line


PROMISED_CHRF = 70


@pytest.mark.slow
def test_a_stranger_gets_from_a_table_to_a_translation(tmp_path: Path) -> None:
    """The commands under "Your own data", on 300 lines of the embedded languages."""
    block = re.search(r"<!-- runnable: own data -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line) for line in block[1].replace("\\\n", " ").splitlines()]
    assert [line[:2] for line in lines] == [["polylect", "train"], ["polylect", "translate"]]
    german, french = (parallel(direction, "train", 300, 7) for direction in ("en-de", "en-fr"))
    rows = [f"{en}\t{de}\t{fr}\n" for (en, de), (_, fr) in zip(german, french, strict=True)]
    (tmp_path / "mine.tsv").write_text("en\tde\tfr\n" + "".join(rows), encoding="utf-8")
    new = "".join(f"{source}\n" for source, _ in german[270:])
    (tmp_path / "new.txt").write_text(new, encoding="utf-8")
    for line in lines:
        made = [path.name for path in tmp_path.glob("runs/mine/*")]
        command = [word.replace("TIME", *made[:1]) if made else word for word in line[1:]]
        given = [sys.executable, "-m", "polylect.cli", *command]
        done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    base = json.loads((folder / "base" / "scores.json").read_text(encoding="utf-8"))
    for direction in ("en-de", "en-fr"):
        assert (folder / "adapters" / direction / "adapter_model.safetensors").is_file()
        reached = scores[direction]["bleu"]["value"]
        assert reached > PROMISED_OWN > base[direction]["bleu"]["value"], (direction, reached)
        outputs = (folder / "outputs" / f"{direction}.txt").read_text(encoding="utf-8")
        assert len(outputs.splitlines()) == 30
    translations = (tmp_path / "new.de.txt").read_text(encoding="utf-8").splitlines()
    scored = (folder / "outputs" / "en-de.txt").read_text(encoding="utf-8").splitlines()
    alike = sum(one == other for one, other in zip(translations, scored, strict=True))
    assert alike > 27, "the adapter translates as the run that trained it"


PROMISED_OWN = 50
