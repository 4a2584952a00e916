"""Every file of conf composes, validates and builds, and mistakes are found before that."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.neurons import write_neurons, write_rows
from helpers.tiny import MODEL, TRAIN, config
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from polylect.config.overrides import resolve_overrides
from polylect.config.roots import SCHEMAS, ConfigError, conf_folder
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.models.backbone import tiny_backbone
from polylect.programs.recipe import stages_of
from polylect.run.build import build_data, build_strategy, load_backbone_into
from polylect.run.monitor.loggers import build_loggers
from polylect.run.precision import settle_precision
from polylect.run.session import register_resolvers

CONF = conf_folder()
FILES = sorted(p.relative_to(CONF).with_suffix("").as_posix() for p in CONF.glob("*/*.yaml"))
KILT = ["model.path=base", "data.directions=[article_1]"]
ROWS = ["strategy.neurons=neurons.safetensors", "strategy.detection=null"]
# What a file leaves to the user.
GIVEN = {
    "data/corpus": ["data.directions=[en-de]", "data.train=train.{lang}", "data.val=val.{lang}"],
    "data/files": ["data.directions=[en-de]", "data.train=train.{lang}", "data.val=val.{lang}"],
    "model/local": ["model.path=base"],
    "strategy/landermt": ["strategy.neurons=neurons.safetensors"],
    "strategy/landermt_published": [*ROWS, "data.template=country"],
    "strategy/landermt_fixed": ROWS,
    "strategy/landermt_paper": ROWS,
    "experiment/landermt": ["model.path=base", "strategy.neurons=neurons.safetensors"],
    "experiment/landermt_gemma": ROWS,
    "experiment/landermt_7b": ROWS,
    "strategy/lora_library": ["strategy.library=adapters"],
    "strategy/lag": ["strategy.library=adapters"],
    "strategy/arrow": ["strategy.library=adapters"],
    "strategy/spectr": ["strategy.library=adapters"],
    "data/kilt": ["data.directions=[article_1]"],
    "experiment/kilt_knowledge": KILT,
    "experiment/kilt_task": KILT,
    "trainer/ddp": ["trainer.accelerator=cpu"],
    "trainer/fsdp": ["trainer.accelerator=cpu"],
}
NOT_OF_TRAINING = ("sweep/", "recipe/", "detection/")
PARTS = {
    "model", "data", "strategy", "optim", "trainer", "logger", "callbacks", "generation",
    "experiment", "sweep", "recipe", "detection",
}  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the files expect of the machine: a folder to run in, a base, data, adapters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYLECT_DATA", "data")
    monkeypatch.setenv("POLYLECT_BASE", "base")
    register_resolvers(tmp_path / "run")


def quoted(overrides: list[str]) -> list[str]:
    return [f"{k}='{v}'" if "{" in v else f"{k}={v}" for k, v in (o.split("=") for o in overrides)]


def composed(file: str, *overrides: str) -> DictConfig:
    group, name = file.split("/")
    return config("train", f"{group}={name}", *quoted(GIVEN.get(file, [])), *overrides)


def build(cfg: DictConfig, folder: Path) -> None:
    """Everything but the base model, which is tiny; nothing is read and nothing runs."""
    adapters = folder / "adapters" / "en-de"
    if "library" in cfg.strategy:
        adapters.mkdir(parents=True)
        (adapters / "adapter_config.json").write_text("{}")
    if "neurons" in cfg.strategy:
        write = write_rows if cfg.strategy.shared else write_neurons
        file = write(Path(), instantiate(cfg.model, "model")[0], cfg.data.directions)
        file.rename(cfg.strategy.neurons)
    data, module = build_data(cfg), build_strategy(cfg)
    if "library" not in cfg.strategy:
        load_backbone_into(module, data, cfg)
    if module.trains:
        module.schedule(module.optimizer(module.parameter_groups()), 10)
    settle_precision(cfg.trainer)
    if cfg.trainer.accelerator != "gpu" or torch.cuda.is_available():
        instantiate(cfg.trainer, "trainer", logger=False, _convert_="all")
    build_loggers(cfg.logger, Path())
    for node in cfg.callbacks.values():
        assert instantiate(node, "callbacks") is not None


@pytest.mark.parametrize(
    "name", ["landermt_7b", "lora_switch_indic", "mix_moe_7b_stage1", "mix_moe_7b_stage2"]
)
def test_experiments_on_bases_of_billions_save_memory(name: str) -> None:
    cfg = composed(f"experiment/{name}")
    assert cfg.model.gradient_checkpointing
    assert cfg.trainer.precision == "bf16-mixed"
    assert cfg.trainer.accumulate_grad_batches > 1


def test_the_folders_of_conf_are_the_parts_of_the_configuration() -> None:
    assert {file.split("/")[0] for file in FILES} == PARTS
    assert {path.stem for path in CONF.glob("*.yaml")} == SCHEMAS.keys() | {
        "hydra_quiet",
        "memory",
    }


@pytest.mark.parametrize("program", SCHEMAS)
def test_every_program_composes_and_validates(program: str) -> None:
    given = {
        "translate": ["run=run"],
        "pretrain": ["out=out"],
        "library": ["path=adapters"],
        "add-language": ["library=adapters"],
        "init": ["folder=mine"],
        "export": ["run=run", "out=out"],
        "verify": ["target=run"],
        "trim": ["out=out", "model.path=base"],
    }
    validate(config(program, *given.get(program, [])))


@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith(NOT_OF_TRAINING)])
def test_every_file_composes_validates_and_builds(file: str, tmp_path: Path) -> None:
    own_model = file.startswith(("model/", "experiment/"))
    cfg = composed(file, *([] if own_model else ["model=tiny"]))
    validate(cfg)
    if file.startswith("experiment/"):  # its own model is not here
        cfg.model = composed("model/tiny").model
    elif file == "model/local":
        model, tokenizer = tiny_backbone(hidden=32)
        model.save_pretrained("base")
        tokenizer.save_pretrained("base")
    elif file.startswith("model/") and "path" in cfg.model:
        return  # a model of the hub
    build(cfg, tmp_path)


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("sweep/")])
def test_every_job_of_a_sweep_composes_validates_and_builds(file: str, tmp_path: Path) -> None:
    if file == "sweep/optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="no hydra-optuna-sweeper")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [file.replace("/", "=")], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    if file == "sweep/optuna":  # which chooses values itself
        with open_dict(cfg):
            del cfg["hydra"]
        return validate(cfg)
    (params,) = [cfg.hydra.sweeper.params]
    assert len(params) == 1
    for key, values in params.items():
        assert len(values.split(",")) > 1
        for value in values.split(","):
            job = config("train", "model=tiny", f"{key}={value}")
            validate(job)
            build(job, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("recipe/")])
def test_every_stage_of_a_recipe_composes_and_validates(file: str) -> None:
    for stage in stages_of(config("recipe", file.replace("/", "="))).values():
        filled = [re.sub(r"\{(\w+)\}", "folder", override) for override in stage.overrides]
        given = resolve_overrides(stage.program, filled, CONF)
        validate(config(stage.program, *given))


# One value, one home


def written(file: str) -> Any:
    return yaml.safe_load((CONF / f"{file}.yaml").read_text(encoding="utf-8"))


def parents(file: str) -> list[str]:
    """The files of the same folder that a file of conf begins from."""
    defaults = [d for d in written(file).get("defaults", []) if isinstance(d, str)]
    return [f"{file.split('/')[0]}/{parent}" for parent in defaults if parent != "_self_"]


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("experiment/")])
def test_an_experiment_is_at_most_two_files_deep(file: str) -> None:
    assert [above for parent in parents(file) for above in parents(parent)] == []


def test_corpora_say_once_what_they_share() -> None:
    shared = written("data/corpus")
    corpora = [written(file) for file in FILES if parents(file) == ["data/corpus"]]
    assert len(corpora) == 13
    for own in corpora:
        assert [key for key in own if own[key] == shared.get(key)] == []


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("recipe/")])
def test_a_recipe_says_once_what_its_stages_share(file: str) -> None:
    settings = [text for text in texts(written(file)) if not text.startswith("${shared.")]
    counts = Counter(text for text in settings if len(text) > 25)
    assert [text for text, count in counts.items() if count > 1] == []


def texts(node: Any) -> Iterator[str]:
    """The values of mappings and lists, down to the last."""
    if isinstance(node, dict | list):
        for own in node.values() if isinstance(node, dict) else node:
            yield from texts(own)
    else:
        yield str(node)


# Mistakes


def mistakes(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        validate(config("train", *MODEL, *overrides))
    return str(error.value).splitlines()


def test_all_mistakes_are_reported_together_by_their_path() -> None:
    messages = mistakes(
        "+strategy.rnk=3",
        "+optim.optimizer.beta=[0,1]",
        "trainer.max_steps=many",
        "+callbacks.checkpoint.monitr=val/loss",
        "+nonsense=1",
        "+strategy.rslora=maybe",
        "generation.ratio=much",
    )
    expected = [
        "config key nonsense does not exist",
        "config key strategy.rnk does not exist; did you mean rank",
        "config key optim.optimizer.beta does not exist; did you mean betas",
        "config key trainer.max_steps must be of type int, got 'many'",
        "config key callbacks.checkpoint.monitr does not exist; did you mean",
        "config key strategy.rslora must be of type bool, got 'maybe'",
        "config key generation.ratio must be a number, got 'much'",
    ]
    assert len(messages) == len(expected)
    for sentence in expected:
        assert any(sentence in line for line in messages), (sentence, messages)


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.path must be given, as in model\.path=VALUE"):
        validate(config("train", "model=local"))


def test_a_target_that_cannot_be_imported_is_named() -> None:
    assert (
        "polylect.strategies.full.Ful"
        in mistakes("strategy._target_=polylect.strategies.full.Ful")[0]
    )


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("strategy.rslora=true", "+strategy.rslora=true"),  # the constructor takes it
        ("optim.optimizer.eps=1e-6", "+optim.optimizer.eps=1e-6"),
        ("strategy.rank=3", "strategy.rank=3"),
        ("seed=3", "seed=3"),
        ("hydra.job.chdir=false", "hydra.job.chdir=false"),
        ("+callbacks.mine._target_=a.B", "+callbacks.mine._target_=a.B"),
    ],
)
def test_a_key_gets_its_plus_where_it_needs_one(given: str, made: str) -> None:
    assert resolve_overrides("train", [given], CONF) == [made]


def test_a_value_that_is_still_missing_may_be_set() -> None:
    assert resolve_overrides("translate", ["run=here"], CONF) == ["run=here"]
    assert resolve_overrides("train", ["model=local", "model.path=x"], CONF)[1].endswith(
        "model.path=x"
    )


# Installed elsewhere


@pytest.mark.slow
def test_a_wheel_carries_its_configuration(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-q",
        "-w",
        str(tmp_path),
        str(root),
    ]
    if importlib.util.find_spec("hatchling"):
        wheel.append("--no-build-isolation")
    subprocess.run(wheel, check=True)
    (built,) = tmp_path.glob("polylect-*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert {f"polylect/conf/{file}.yaml" for file in FILES} <= set(names)
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(site)]
    subprocess.run([*install, str(built)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def there(*command: str) -> str:
        run = [sys.executable, *command]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = there("-c", "import polylect.config.roots; print(polylect.config.roots.conf_folder())")
    assert where.strip() == str(site / "polylect" / "conf")
    assert "LoRASwitch" in there("-m", "polylect.cli", "train", "--cfg", "job")
    there("-m", "polylect.cli", "train", *TRAIN, "trainer.max_steps=1")
