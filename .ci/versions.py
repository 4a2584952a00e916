"""The two ends of the version ranges in pyproject.toml.

    python .ci/versions.py lowest               # print the lower ends, as constraints for pip
    python .ci/versions.py next [PACKAGE ...]   # which newer release would break which tests?

`next` makes a virtual environment in a temporary folder with the newest versions that the ranges
admit. Then every direct dependency of which there is a newer release (pre-releases count) is
installed alone, the tests of what touches other libraries run, and a line says whether they passed;
last come all of them together. The exit code is 1 if any release breaks something.

torch and triton are left alone: older and newer releases have no CPU build on the package index.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
import venv
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FIXED = {"torch", "triton", "polylect"}
CONTRACT = [
    f"tests/{name}"
    for name in (
        "strategies/test_contract.py",
        "layers/test_tokens.py",
        "library",
        "models",
        "kernels",
        "data",
        "test_config.py",
        "test_train.py",
    )
]


def requirements() -> list[Requirement]:
    """The direct dependencies, of the extras as well, with a version that can be chosen."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    return [found for found in map(Requirement, sorted(set(lines))) if found.name not in FIXED]


def print_lowest() -> None:
    for requirement in requirements():
        for bound in requirement.specifier:
            if bound.operator == ">=":
                print(f"{requirement.name}=={bound.version}")


def try_next(chosen: list[str]) -> int:
    """Print what each newer release breaks; 1 if anything."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        pip = partial(run, python, "-m", "pip")
        pip("install", "-q", "-e", ".[dev]")
        frozen = Path(folder) / "frozen.txt"
        frozen.write_text(pip("freeze", "--exclude-editable"))
        names = set(chosen) or {requirement.name for requirement in requirements()}
        outdated = json.loads(pip("list", "--outdated", "--pre", "--format=json"))
        newer = [package for package in outdated if package["name"] in names]
        if not newer:
            print("There is nothing newer than what the ranges admit.")
        trials = [[package] for package in newer] + ([newer] if len(newer) > 1 else [])
        broken = False
        for packages in trials:
            broken |= breaks(python, packages)
            pip("install", "-q", "-r", frozen)
    return int(broken)


def breaks(python: Path, packages: list[dict[str, str]]) -> bool:
    """Whether tests fail with these releases; says so in a line, and names the tests."""
    names = ", ".join(f"{p['name']} {p['version']} -> {p['latest_version']}" for p in packages)
    pins = [f"{p['name']}=={p['latest_version']}" for p in packages]
    try:
        run(python, "-m", "pip", "install", "-q", "--pre", *pins)
    except subprocess.CalledProcessError as error:
        print(f"{names}: cannot be installed with the rest\n{error.stderr}", flush=True)
        return True
    command = [python, "-m", "pytest", "-q", "--no-header", "--tb=line", *CONTRACT]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    lines = done.stdout.splitlines() or ["no output"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print(f"{names}: {'breaks' if done.returncode else 'passes'} ({lines[-1].strip('= ')})")
    print("".join(f"    {line}\n" for line in failed), end="", flush=True)
    return done.returncode != 0


def run(*command: str | Path) -> str:
    """What a command prints; raises CalledProcessError, with what it complained of, if it fails."""
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True)
    return done.stdout


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lowest"]:
            print_lowest()
        case ["next", *chosen]:
            sys.exit(try_next(chosen))
        case _:
            sys.exit(__doc__)
