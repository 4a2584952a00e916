"""LANDeRMT as its authors published it, repaired, and as printed: settings, detection, training."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers.tiny import MODEL, TRAIN, checkpoint, config, folders, record
from omegaconf import OmegaConf

from polylect.config.roots import conf_folder
from polylect.config.validation import target_parameters, validate
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.programs import detect
from polylect.programs.train import main

PRESETS = ("landermt_published", "landermt_fixed", "landermt_paper")
EMBEDDED = ["model=tongues", "data=tongues"]
FULL = "polylect.strategies.full.Full"
SWITCHES = ("average", "label_shift", "pad_labels")
LANGUAGES = "data.directions=[en,de,fr]"


def train(runs: Path, *overrides: str) -> Path:
    """Train to the end, on the embedded base; the run folder."""
    before = folders(runs)
    settings = [override for override in TRAIN if override not in MODEL]
    main(config("train", *settings, *overrides, f"runs={runs}"))
    (folder,) = folders(runs) - before
    return folder


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_every_choice_and_where_it_comes_from(name: str) -> None:
    text = (conf_folder() / "strategy" / f"{name}.yaml").read_text(encoding="utf-8")
    stated = yaml.safe_load(text).keys() - {"_target_"}
    cfg = config("train", f"strategy={name}", "strategy.neurons=n", "model=tiny")
    own = target_parameters(cfg.strategy).keys()
    of_every_strategy = target_parameters(OmegaConf.create({"_target_": FULL})).keys()
    assert stated == own - of_every_strategy
    body = text[text.index("_target_") :]
    sources = [line for line in body.splitlines()[1:] if line.strip() and "# " in line]
    tags = ("CODE", "SEEN", "INFERRED", "OUR CHOICE", "of gates", "what the file must")
    assert all(any(tag in line for tag in tags) for line in sources)


@pytest.mark.parametrize("name", PRESETS)
def test_the_detection_of_a_preset_is_the_one_it_asks_for(name: str) -> None:
    asked = OmegaConf.to_container(
        config("train", f"strategy={name}", "strategy.neurons=n", "model=tiny").strategy.detection
    )
    cfg = config("detect", f"detection={name}")
    validate(cfg)
    assert {key: cfg[key] for key in SWITCHES} == {key: asked[key] for key in SWITCHES}
    assert cfg.layers == {**asked["layers"], "rule": cfg.layers.rule}
    assert cfg.categories == asked["categories"]


def test_defects_are_off_unless_published() -> None:
    defects = {"decay_frozen": True, "mask_at_step": True, "language_names": False}
    of_detection = {"label_shift": True, "pad_labels": True, "average": "sentences"}
    for name in (*PRESETS, "landermt"):
        settings = config("train", f"strategy={name}", "strategy.neurons=n", "model=tiny").strategy
        found = config("detect", *([f"detection={name}"] if name in PRESETS else []))
        published = name == "landermt_published"
        assert all((settings[key] == value) == published for key, value in defects.items())
        assert all((found[key] == value) == published for key, value in of_detection.items())
        assert found.categories.per_language_normalisation != published


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_detects_and_trains_on_the_embedded_base(name: str, tmp_path: Path) -> None:
    paper = name == "landermt_paper"
    text = "data.directions=[en-de,en-fr]" if paper else LANGUAGES
    small = ["sentences=8", "data.val.size=8", "layers.k=2", f"runs={tmp_path}"]
    detect.main(config("detect", *EMBEDDED, f"detection={name}", text, *small))
    (folder,) = folders(tmp_path)
    found = ModuleNeurons.read(folder / detect.FILE)
    assert (list(found.kinds) == [FFN]) == paper
    for file in found.kinds.values():
        rows = file.general.shape[1]
        assert (file.general.sum(1) == rows * 9 // 10).all()  # per module, a tenth is specific
        assert paper or (file.specific.sum(1) <= 1).all()  # of one language
    settings = [f"strategy={name}", f"strategy.neurons={folder / detect.FILE}", *EMBEDDED]
    template = "country" if name == "landermt_published" else "plain"
    settings += [f"data.template={template}", "+data.mixing=by_direction"]
    settings += ["strategy.detection.layers.k=2", "trainer.accumulate_grad_batches=2"]
    settings += ["trainer.max_steps=3", "trainer.val_check_interval=6"]
    trained = train(tmp_path, *settings)
    assert record(trained)["status"] == "done"
    moved = checkpoint(trained)["state_dict"]
    assert moved
    assert all(tensor.isfinite().all() for tensor in moved.values() if tensor.is_floating_point())


def test_a_preset_refuses_neurons_that_were_detected_otherwise(tmp_path: Path) -> None:
    small = ["sentences=4", "data.val.size=4", "layers.k=2", f"runs={tmp_path}"]
    detect.main(config("detect", *EMBEDDED, "detection=landermt_fixed", LANGUAGES, *small))
    (folder,) = folders(tmp_path)
    settings = ["strategy=landermt_published", f"strategy.neurons={folder / detect.FILE}"]
    given = [*settings, *EMBEDDED, "data.template=country"]
    with pytest.raises(ValueError, match=r"detected with average=tokens, and strategy\.detection"):
        train(tmp_path, *given, "strategy.detection.layers.k=2")
    assert torch.is_tensor(ModuleNeurons.read(folder / detect.FILE).any.relevance)
