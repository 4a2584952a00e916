"""Who may import whom: a folder of the package imports from the folders named here only."""

import ast
from pathlib import Path

import polylect

ROOT = Path(polylect.__file__).parent
ANYWHERE = {"hints"}
MAY_IMPORT = {
    "kernels": set(),
    "layers": {"kernels"},
    "models": {"data", "layers"},
    "data": set(),
    "eval": set(),
    "record": set(),
    "library": set(),
    "plots": {"library", "layers"},
    "retrieval": {"data"},
    "strategies": {"layers", "kernels", "models", "library", "data", "eval", "plots"},
    "callbacks": {"strategies", "data"},
    "config": set(),
}


def imports(path: Path) -> set[str]:
    """Second component of every `polylect.x` the file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("polylect.")}
    return found


def test_imports_point_downwards() -> None:
    wrong = []
    for part, allowed in MAY_IMPORT.items():
        files = (ROOT / part).rglob("*.py") if (ROOT / part).is_dir() else [ROOT / f"{part}.py"]
        for path in files:
            for name in imports(path) - allowed - ANYWHERE - {part}:
                wrong.append(f"{path.relative_to(ROOT)} imports polylect.{name}")
    assert not wrong, "\n".join(wrong)


def test_no_file_grows_past_400_lines() -> None:
    long = {p.name: n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
