"""The ranges of versions, the constraints file and the tool that tries both ends agree."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
    if not line.startswith("polylect")
]


def pinned(text: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pins = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_constraints_file_lies_within_the_range(requirement: Requirement) -> None:
    tested = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    if requirement.name in ("bitsandbytes", "accelerate") and requirement.name not in tested:
        pytest.skip("for GPUs alone")
    assert requirement.specifier.contains(tested[requirement.name], prereleases=True)


@pytest.mark.parametrize("name", ["torch", "lightning", "hydra-core", "transformers", "peft"])
def test_what_has_broken_us_before_has_an_upper_end(name: str) -> None:
    bounds = {b.operator for r in REQUIREMENTS if r.name == name for b in r.specifier}
    assert bounds >= {">=", "<"}


def test_the_lowest_versions_are_the_lower_ends() -> None:
    command = [sys.executable, ROOT / ".ci" / "versions.py", "lowest"]
    lowest = pinned(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for requirement in REQUIREMENTS:
        if requirement.name not in ("torch", "triton"):
            below = [b.version for b in requirement.specifier if b.operator == ">="]
            assert below == [lowest[requirement.name]], requirement
    assert lowest["transformers"].startswith("5.17")
