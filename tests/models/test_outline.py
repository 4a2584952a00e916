"""Models without weights: the sizes that are known without files."""

import pytest
import yaml

from polylect.config.roots import conf_folder
from polylect.models.families import family_of
from polylect.models.outline.model import outline_backbone
from polylect.models.outline.sizes import SIZES, published_config
from polylect.models.source import is_outline

# As the hub counts the parameters of each, tied ones once.
PARAMETERS = {
    "bigscience/bloom-560m": 559_214_592,
    "bigscience/bloom-7b1": 7_069_016_064,
    "EleutherAI/pythia-410m": 405_334_016,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-270m": 268_098_176,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
}


@pytest.mark.parametrize("hub_id", SIZES)
def test_a_known_model_has_the_parameters_of_the_real_one(hub_id: str) -> None:
    outline = outline_backbone(hub_id)
    assert is_outline(outline.model) and outline.tokenizer is None
    assert sum(p.numel() for p in outline.model.parameters()) == PARAMETERS[hub_id]
    assert "published sizes" in outline.origin
    assert family_of(published_config(hub_id))


def test_every_hub_id_of_conf_is_known() -> None:
    paths = (yaml.safe_load(f.read_text()).get("path") for f in conf_folder().glob("model/*.yaml"))
    assert {path for path in paths if path and path != "???"} == set(SIZES)


def test_of_other_models_it_is_said_what_is_known() -> None:
    known = "the hub was not reached.* Sizes are known without files of EleutherAI/pythia-410m,"
    with pytest.raises(FileNotFoundError, match=known):
        outline_backbone("nobodys/model")
