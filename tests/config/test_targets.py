"""What a configuration may name, and that nothing else is imported or called."""

import re
import sys
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from helpers.tiny import config
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import polylect
from polylect.config.roots import ConfigError
from polylect.config.targets import check_packages, instantiate, known_targets, target_mistakes
from polylect.config.validation import validate
from polylect.strategies.generation import Generation

SECTIONS = ("model", "data", "strategy", "optim", "trainer", "logger", "callbacks", "generation")
STRANGERS = (
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "pathlib.Path.write_text",
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "functools.partial",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "logging.config.dictConfig",
    "transformers.AutoModel.from_pretrained",
    "polylect.run.record.write_text",
    "polylect.models.pretraining.pretrain",
    "polylect.programs.train.os.system",
    "polylect.strategies.lora_switch.LoRASwitch.load_from_checkpoint",
    "lightning.pytorch.Trainer.fit",
    "torch.optim.optimizer.warnings.warn",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "torch.optim",
)
PACKAGE = '''
import os
from os import system
from pathlib import Path

from polylect.strategies.generation import Generation


class Mine(Generation):
    """A generation of one's own."""

    @classmethod
    def short(cls, limit):
        return cls(limit=limit)


def made(limit):
    return Mine(limit=limit)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of two packages that can be imported: `mine`, and `evil`, which says if it was."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "parts.py").write_text(PACKAGE)
    trace = tmp_path / "imported"
    (tmp_path / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n\ndef f(**_): pass\n")
    (tmp_path / "mine_too.py").write_text(f"open({str(trace)!r}, 'w')\n\ndef f(**_): pass\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("mine", "evil")]:
        del sys.modules[name]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_on_no_list_is_refused(section: str, name: str, tmp_path: Path) -> None:
    written = tmp_path / "written"
    node = {"_target_": name, "path": written, "text": "x", "f": str(written)}
    with pytest.raises(ConfigError, match=rf"{section}\._target_ names {name}, which is not") as e:
        instantiate({k: str(v) for k, v in node.items()}, section)
    assert len(str(e.value).splitlines()) == 1
    assert not written.exists()


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "NAME"},
        {"corpus": {"_target_": "NAME"}},
        {"corpora": [{"kind": "tsv"}, {"_target_": "NAME"}]},
        {"corpora": [[{"_target_": "NAME", "_partial_": True}]]},
        {"_target_": "polylect.data.datamodule.TranslationData", "train": {"_target_": "NAME"}},
        {"_recursive_": False, "_convert_": "none", "train": {"_target_": "NAME"}},
        {"train": "${oc.create:{_target_: NAME}}"},
        {"_target_": "${oc.decode:NAME}"},
        {"name": "NAME", "train": {"_target_": "${..name}"}},
    ],
    ids=str,
)
def test_a_name_is_found_wherever_it_stands(node: dict[str, Any], package: Path) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(node)).replace("NAME", "evil.f")
    cfg = OmegaConf.create({"data": OmegaConf.create(text)})
    with pytest.raises(ConfigError, match=r"_target_ names evil\.f, which is not on the list"):
        instantiate(cfg.data, "data")
    with pytest.raises(ConfigError, match=r"_target_ names evil\.f, which is not on the list"):
        validate(cfg)
    assert not (package / "imported").exists()


@st.composite
def hidden(draw: st.DrawFn) -> tuple[Any, int]:
    """A configuration of any shape, and how many targets it has that nobody may name."""
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
    target = st.fixed_dictionaries({"_target_": st.just("evil.f"), "x": leaf})
    key = st.text("abc", min_size=1, max_size=2)

    def grown(inner: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(inner, max_size=3) | st.dictionaries(key, inner, max_size=3)

    value = draw(st.recursive(leaf | target, grown, max_leaves=8))
    return value, str(value).count("'evil.f'")


@given(hidden())
@settings(max_examples=60)
def test_every_name_is_found(found: tuple[Any, int]) -> None:
    value, count = found
    assert len(list(target_mistakes(value, "data", "data"))) == count


@pytest.mark.parametrize("name", [3, None, ["os.system"], {"a": "os.system"}])
def test_a_target_that_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\._target_ names .*, which is no name"):
        instantiate({"_target_": name}, "model")


def test_arguments_are_given_by_their_names() -> None:
    node = {"_target_": "polylect.models.backbone.tiny_backbone", "_args_": ["llama"]}
    with pytest.raises(ConfigError, match=r"config key model\._args_ does not exist"):
        instantiate(node, "model")


def test_a_typo_in_a_name_of_ours_is_told_the_nearest() -> None:
    node = {"_target_": "polylect.strategies.full.Ful"}
    with pytest.raises(ConfigError, match=r"did you mean polylect\.strategies\.full\.Full"):
        instantiate(node, "strategy")


def test_a_section_takes_its_own_objects_only() -> None:
    full = {"_target_": "polylect.strategies.full.Full", "directions": ["en-de"]}
    with pytest.raises(ConfigError, match="is not for data"):
        instantiate(full, "data")
    assert instantiate(full, "strategy").directions == ("en-de",)
    assert known_targets("layers") == frozenset()


def test_what_a_constructor_refuses_is_a_sentence() -> None:
    node = {"_target_": "polylect.strategies.generation.Generation", "beams": 0}
    with pytest.raises(ConfigError, match=r"^generation\.beams must be at least 1"):
        instantiate(node, "generation")
    with pytest.raises(
        ConfigError, match=r"^generation: TypeError: .*POLYLECT_TRACEBACK=1 shows where"
    ):
        instantiate(node | {"beams": 1, "nonsense": 1}, "generation")


# Packages of the user's own


@pytest.mark.parametrize("name", ["mine.parts.Mine", "mine.parts.Mine.short", "mine.parts.made"])
def test_a_package_is_allowed_once_it_is_named(name: str, package: Path) -> None:
    node = {"_target_": name, "limit": 7}
    with pytest.raises(ConfigError, match=r"name the package, as in packages=\[mine\]"):
        instantiate(node, "generation")
    assert "mine.parts" not in sys.modules
    made = instantiate(node, "generation", ["mine"])
    assert isinstance(made, Generation) and made.limit == 7
    assert instantiate(node, "generation", ["mine.parts"]).limit == 7
    cfg = config("translate", "run=here", "packages=[mine]", f"generation._target_={name}")
    validate(cfg)
    cfg.packages = []
    with pytest.raises(ConfigError, match="is not on the list for generation"):
        validate(cfg)


@pytest.mark.parametrize(
    "name",
    [
        "mine.parts.os.system",
        "mine.parts.system",
        "mine.parts.Path.write_text",
        "mine.parts.Generation",  # may be named by its own path
        "mine.parts.made.__globals__.get",
        "mine.parts.Mine.__subclasses__",
        "mine.parts.Mine.__class__",
    ],
)
def test_what_a_package_only_imports_is_not_its_own(name: str, package: Path) -> None:
    with pytest.raises(ConfigError, match="is not defined in the package mine but in"):
        instantiate({"_target_": name}, "generation", ["mine"])


def test_a_package_is_not_its_neighbour(package: Path) -> None:
    for name in ("mine_too.f", "mine", "evil.f"):
        with pytest.raises(ConfigError, match="is not on the list"):
            instantiate({"_target_": name}, "data", ["mine"])
    assert not (package / "imported").exists()
    with pytest.raises(ConfigError, match=r"names mine\.nowhere\.f, which cannot be imported"):
        instantiate({"_target_": "mine.nowhere.f"}, "data", ["mine"])


@pytest.mark.parametrize(
    "name", ["os", "builtins", "pathlib.Path", "polylect", "polylect.run.record"]
)
def test_what_is_no_package_of_ones_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"packages={name} is no package of your own"):
        check_packages([name])
    cfg = config("translate", "run=here", f"packages=[{name}]")
    with pytest.raises(ConfigError, match="is no package of your own"):
        validate(cfg)


@pytest.mark.parametrize("packages", ["mine", ["my mine"], [""], ["mine.*"], ["."]])
def test_packages_are_a_list_of_names(packages: Any) -> None:
    with pytest.raises(ConfigError, match=r"write packages=\[mine\]"):
        check_packages(packages)


# What a user may type, and a file may not


def test_optimizers_loggers_and_callbacks_may_be_typed_but_not_stored() -> None:
    for section, name in (
        ("optim", "torch.optim.SGD"),
        ("logger", "lightning.pytorch.loggers.MLFlowLogger"),
        ("callbacks", "lightning.pytorch.callbacks.LearningRateMonitor"),
    ):
        node = {"_target_": name}
        assert not list(target_mistakes(node, section, section))
        (mistake,) = target_mistakes(node, section, section, stored=True)
        assert f"names {name}, which is not on the list" in mistake
        assert not list(target_mistakes(node, section, section, [name.rpartition(".")[0]]))
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
    made = instantiate({"optimizer": sgd}, "optim", _convert_="all")["optimizer"]
    assert isinstance(made([torch.nn.Parameter(torch.ones(2))]), torch.optim.SGD)


# Hydra's own check, from 1.4 on


def test_hydra_gets_the_list_where_it_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def newer(node: Any, *, _execution_whitelist_: Any = None, **keywords: Any) -> None:
        calls.append((node, _execution_whitelist_, keywords))

    monkeypatch.setattr(hydra.utils, "instantiate", newer)
    instantiate({"x": 1}, "optim", ["mine"], _convert_="all")
    ((node, listed, keywords),) = calls
    assert (node, keywords) == ({"x": 1}, {"_convert_": "all"})
    assert set(listed) == known_targets("optim") | {"torch.optim.*", "mine.*"}


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (r"hydra\.utils|import instantiate|_instantiate2", {"config/targets.py"}),
        (r"torch\.load\(|\.load_from_checkpoint\(", {"polylect/files.py"}),
        (r"allow_pickle|pickle\.load|\bdill\b|joblib\.|torch\.hub|OmegaConf\.load", set()),
        (r"yaml\.(unsafe_|full_)?load|\beval\(|\bexec\(|trust_remote_code=True", set()),
    ],
)
def test_there_is_one_way_to_what_could_execute_a_file(words: str, places: set[str]) -> None:
    root = Path(polylect.__file__).parent
    code = [*root.rglob("*.py"), *(root.parents[1] / "experiments").rglob("*.py")]
    own = "from polylect.config.targets import instantiate"
    texts = {
        f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8").replace(own, "")
        for path in code
    }
    calls = re.compile(rf"(?<!\.)(?:{words})")
    assert {name for name, text in texts.items() if calls.search(text)} == places
