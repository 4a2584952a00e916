"""Who may import whom, file by file: a place of the package imports from those named beside it."""

import ast
from collections import Counter
from pathlib import Path

import polylect

ROOT = Path(polylect.__file__).parent
ANYWHERE = {"did_you_mean", "files", "finite", "lru"}
BASICS = {"layers.context", "layers.tokens", "layers.surgery"}
"""Layers that belong to no method."""

# The longest name that fits a module decides; a place may always import from itself.
MAY_IMPORT = {
    "did_you_mean": set(),
    "files": set(),
    "finite": set(),
    "lru": set(),
    "kernels": set(),
    "layers.tokens": set(),
    "layers.surgery": set(),
    "layers.context": {"layers.tokens"},
    "layers.lora": {"kernels", *BASICS},
    "layers.adapters": {"kernels", *BASICS},
    "layers.neurons": {"kernels", *BASICS},
    "layers.experts": {"kernels", *BASICS},
    "tongues": set(),
    "data": {"tongues", "models.context", "eval.language"},
    "documents": {"data"},
    "eval": set(),
    "library": {"layers.tokens", "data.languages"},
    "models": {"data", *BASICS},
    "models.mixture": {"models", "layers.experts", *BASICS},
    "models.dense": {"models", "layers.experts", *BASICS},
    "retrieval": {"data", "models.context"},
    "plots": {"library", "layers.tokens"},
    "strategies": {"data", "library", "models", "plots", *BASICS},
    "strategies.lora": {"strategies", "data", "library", "layers.lora"},
    "strategies.lora_switch": {
        "strategies", "data", "library", "models", "plots", "layers.lora"
    },
    "strategies.lora_library": {"strategies", "data", "library", "layers.lora"},
    "strategies.landermt": {
        "strategies", "data", "library", "models", "plots", "layers.neurons", "layers.context"
    },
    "strategies.mix_moe": {
        "strategies", "data", "library", "models", "plots", "layers.experts", "layers.tokens"
    },
    "strategies.expert_report": {"strategies.base", "data", "layers.experts"},
    "strategies.lag": {
        "strategies", "data", "library", "plots", "layers.adapters", "layers.lora"
    },
    "config": {"eval.metrics"},
    "run": {"config", "data", "eval", "models", "plots", "retrieval", "strategies", "translator"},
    "run.untrained_model": {"run", "config", "data", "library", "strategies"},
    "run.interference.parts": {
        "run", "data", "library", "models", "strategies", "layers.adapters", "layers.experts",
        "layers.lora"
    },
    "run.interference.responsibility": {"run", "data", "library", "strategies"},
    "run.results.export": {"run", "config", "library", "models", "layers.neurons"},
    "run.results.gguf": {"run", "library", "models"},
    "run.results.vllm": {"run", "library"},
    "run.neuron_selection": {"run", "library", "layers.neurons"},
    "run.monitor.without_values": {"run", "data", "strategies", "layers.neurons"},
    "run.budget": {"run", "config", "data", "eval.table", "library", "models", "strategies"},
    "run.awareness": {"run", "config", "data", "strategies", "layers.neurons"},
    "run.passport.used_files": {"run.build", "config.roots", "library"},
    "run.passport": {"run.record", "data", "library", "models", "strategies", "tongues"},
    "run.verify": {
        "run", "config", "data", "eval.table", "library", "layers", "models", "strategies",
        "translator"
    },
    "translator": {"data", "library", "models", "retrieval", "run", "strategies"},
    "programs": {
        "config", "data", "documents", "eval", "layers", "library", "models", "plots", "retrieval",
        "run", "strategies", "tongues", "translator"
    },
}  # fmt: skip
PROGRAMS = {path.stem for path in (ROOT / "programs").glob("*")} - {"__init__", "__pycache__"}
MAY_IMPORT |= {f"programs.{name}": MAY_IMPORT["programs"] for name in PROGRAMS}


def modules() -> dict[str, Path]:
    """The modules of the package by name, without "polylect."."""
    paths = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in whole if name.removeprefix("polylect.") in MODULES}
            names |= inner or {node.module}
    return {name.removeprefix("polylect.") for name in names if name.startswith("polylect.")}


def lies_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def test_imports_point_downwards() -> None:
    wrong = []
    for module, path in MODULES.items():
        places = [place for place in MAY_IMPORT if lies_in(module, place)]
        if not places:
            continue
        place = max(places, key=len)
        allowed = MAY_IMPORT[place] | ANYWHERE | {place}
        for name in sorted(imports(path)):
            if not any(lies_in(name, known) for known in allowed):
                wrong.append(f"{module} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_file_has_more_than_300_lines() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()
    }
    assert not {name: count for name, count in lines.items() if count > 300}


def test_no_folder_has_more_than_14_files() -> None:
    """The tongues apart, of which each has files of its own."""
    files = Counter(".".join(path.relative_to(ROOT).parts[:-1]) for path in MODULES.values())
    full = {folder for folder, count in files.items() if count > 14}
    assert not full - {"tongues"}, files
