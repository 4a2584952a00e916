"""Notebooks run top to bottom, and are committed with small outputs that a run has made.

`STORE_NOTEBOOKS=1 pytest -m slow -n 0 tests/test_notebooks.py` stores what they put out.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_of_a_whole_run_are_stored_and_small(notebook: Path) -> None:
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a picture"
    assert notebook.stat().st_size < 400_000
    text = json.dumps(outputs)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text), "nothing of a machine"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    shutil.copy(notebook, tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", notebook.name]
    command += ["--nbmake-timeout=600", "-o", "addopts=", "-p", "no:cacheprovider", "-W", "ignore"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    if os.environ.get("STORE_NOTEBOOKS"):
        store(tmp_path / notebook.name, notebook)


def store(made: Path, notebook: Path) -> None:
    """Keep the outputs of a run, without what differs from one to the next for no reason."""
    content = json.loads(made.read_text(encoding="utf-8"))
    content["metadata"] = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    for cell in content["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = kept(cell["outputs"])
    text = json.dumps(content, ensure_ascii=False, indent=1)
    notebook.write_text(text + "\n", encoding="utf-8")


def kept(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines printed after each other as one output, small pictures, no warnings of a machine."""
    small: list[dict[str, Any]] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if "image/png" in (data := output.get("data", {})):
            data.pop("text/plain", None)  # the picture's size and address
            data["image/png"] = few_colours(data["image/png"])
        if small and output.get("name") == small[-1].get("name") == "stdout":
            small[-1]["text"] = [*small[-1]["text"], *output["text"]]
        else:
            small.append(output)
    return small


def few_colours(png: str) -> str:
    """The same picture, in base64, from a palette: half the size or less."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
