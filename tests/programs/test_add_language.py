"""A language more for a library: what is near it, how it begins, and that the others stay."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.serving import serving
from helpers.small import base, batch_of, build, examples
from helpers.tiny import DATA, LENGTH, MODEL, config, record, train
from omegaconf import OmegaConf

from polylect.cli import run
from polylect.data.batch import pad_id
from polylect.data.stream import EvaluationBatches
from polylect.library import Adapter, AdapterLibrary
from polylect.library.adapter import LowRank
from polylect.programs.add_language.nearest import mean_update, similarities
from polylect.run.build import load
from polylect.strategies.lora.start import begin_with
from polylect.strategies.loss import target_losses

PATH = "model.layers.0.mlp.down_proj"


def update(rank: int, seed: int, scaling: float = 1.0, out: int = 32, width: int = 96) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, width, generator=generator)
    return LowRank(a, torch.randn(out, rank, generator=generator), scaling)


def product(update: LowRank) -> torch.Tensor:
    return update.scaling * update.b.double() @ update.a.double()


def test_the_mean_of_adapters_is_that_of_their_products() -> None:
    updates = [update(2, 0, 0.5), update(3, 1, 2.0)]
    adapters = [Adapter({PATH: update}) for update in updates]
    expected = (product(updates[0]) + product(updates[1])) / 2
    mean, kept = mean_update(adapters, 5)
    assert len(mean[PATH].a) == 5 and kept == pytest.approx(1)
    torch.testing.assert_close(product(mean[PATH]), expected, atol=1e-5, rtol=1e-5)
    cut, kept = mean_update(adapters, 2)
    u, s, v = torch.linalg.svd(expected, full_matrices=False)  # Eckart and Young
    best = u[:, :2] * s[:2] @ v[:2]
    torch.testing.assert_close(product(cut[PATH]), best, atol=1e-5, rtol=1e-5)
    assert kept == pytest.approx(float(s[:2].square().sum() / s.square().sum()), rel=1e-4)


def test_a_layer_that_one_adapter_leaves_alone_counts_as_zero() -> None:
    one, other = update(2, 0), update(2, 1)
    mean, _ = mean_update([Adapter({"x": one, "y": other}), Adapter({"x": one})], 2)
    torch.testing.assert_close(product(mean["x"]), product(one), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(product(mean["y"]), product(other) / 2, atol=1e-5, rtol=1e-5)


def test_nearness_is_the_cosine_with_the_step_that_descends(tmp_path: Path) -> None:
    model, tokenizer = base()
    module = build("frozen")
    rows = examples(module)
    batches = EvaluationBatches(rows, 512, 64, pad_id(tokenizer))
    weight = model.get_submodule(PATH).weight
    losses, _ = target_losses(model, batch_of(module))
    (gradient,) = torch.autograd.grad(losses.sum(), weight)
    u, s, v = torch.linalg.svd(gradient)
    library = AdapterLibrary(tmp_path)
    half = LowRank(v[:4], -u[:, :4] * s[:4], 0.5)
    for name, own in {"down": half, "up": LowRank(half.a, -half.b, 0.5)}.items():
        library.save(name, Adapter({PATH: own}))
    found = similarities(library, library.names, model, batches)
    expected = float(s[:4].norm() / s.norm())
    assert found == pytest.approx({"down": expected, "up": -expected}, rel=1e-3)
    assert all(p.grad is None for p in model.parameters())


def plain_of(program: str) -> dict:
    return OmegaConf.to_container(config(program), resolve=False)


def test_settings_are_those_of_train() -> None:
    """What is not given has to be the same in both, since only what is given is handed on."""
    own, theirs = (plain_of(program) for program in ("add-language", "train"))
    more = {"library", "start", "sentences", "server", "key_file"}
    assert own.keys() - theirs.keys() == more
    for key in theirs.keys() - {"name", "memory"}:
        assert own[key] == theirs[key], key


NEW = [
    *MODEL,
    *[o.replace("en-de,en-fr", "en-hi").lstrip("+") for o in DATA if not o.startswith("~")],
    *LENGTH,
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "evaluate_base=false",
    "metrics=[chrf++]",
]


@pytest.mark.slow
def test_a_direction_comes_to_a_library_that_is_served(tiny_run: Path, tmp_path: Path) -> None:
    served = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    library = AdapterLibrary(served / "adapters")
    before = {name: library.digest(name) for name in library.names}
    with serving(served) as server:
        command = ["add-language", f"library={library.path}", f"runs={tmp_path}/runs", *NEW]
        assert run([*command, f"server={server.url}", "start=mean"]) == 0
        _, answer = server.get("/v1/directions")
        assert answer["directions"] == ["en-de", "en-fr", "en-hi"]
        assert run([*command, f"server={server.url}"]) == 2  # which it has already
    assert library.names == ["en-de", "en-fr", "en-hi"]
    assert {name: library.digest(name) for name in before} == before
    (folder,) = tmp_path.glob("runs/add-language/*")
    metrics = record(folder)["metrics"]
    assert metrics["verified"]["adapters"] == ["en-de", "en-fr", "en-hi"]
    assert metrics["began_with"] == {"en-hi": list(metrics["similarities"]["en-hi"])}
    started = AdapterLibrary(folder / "start").load("en-hi").modules
    trained = AdapterLibrary(folder / "train" / "adapters").load("en-hi").modules
    for path, own in trained.items():  # two steps from the mean, not from zero
        assert (product(own) - product(started[path])).norm() < product(started[path]).norm()


@pytest.mark.slow
def test_an_adapter_that_has_changed_stops_it(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One flipped bit of another adapter: nothing is added."""
    library = Path(shutil.copytree(tiny_run / "adapters", tmp_path / "library"))
    weights = library / "en-de" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    command = ["add-language", f"library={library}", f"runs={tmp_path}/runs", *NEW]
    assert run([*command, "start=cold", "evaluate=false"]) == 2
    said = capfd.readouterr()
    assert "FAILED: " in said.out and "adapter_model.safetensors" in said.out
    assert "Nothing was added to" in said.err
    assert AdapterLibrary(library).names == ["en-de", "en-fr"]


def test_an_adapter_begins_with_another_whatever_its_scaling(tmp_path: Path) -> None:
    module = build("lora_switch", "strategy.rank=6", "strategy.alpha=3")
    layers = {p: m for p, m in module.backbone.named_modules() if hasattr(m, "lora_a")}
    path, layer = next(iter(layers.items()))
    start = update(4, 3, 0.7, layer.out_features, layer.in_features)
    folder = AdapterLibrary(tmp_path).save("start", Adapter({path: start}))
    begin_with(folder, module.backbone, "en-de", module.base_fingerprint)
    own = LowRank(layer.lora_a["en-de"], layer.lora_b["en-de"], layer.scaling["en-de"])
    torch.testing.assert_close(product(own), product(start), atol=1e-5, rtol=1e-5)
    assert layer.lora_a["en-de"][4:].any(), "the ranks that are new could never learn"
    assert not layer.lora_b["en-fr"].any()
    higher = AdapterLibrary(tmp_path).save(
        "higher", Adapter({path: update(8, 3, 1.0, layer.out_features, layer.in_features)})
    )
    with pytest.raises(ValueError, match=r"rank 8 in .*, and adapter en-de 6: give strategy.rank"):
        begin_with(higher, module.backbone, "en-de", module.base_fingerprint)
    elsewhere = AdapterLibrary(tmp_path).save("head", Adapter({"lm_head": update(2, 3, 1.0, 1, 1)}))
    with pytest.raises(ValueError, match="does not fit: lm_head is"):
        begin_with(elsewhere, module.backbone, "en-de", module.base_fingerprint)


def test_a_start_is_of_an_adapter_that_is_trained() -> None:
    with pytest.raises(Exception, match=r"strategy\.start names en-xx, which is no adapter"):
        build("lora_switch", "strategy.start={en-xx: folder}")
    with pytest.raises(Exception, match=r"strategy\.start or strategy\.init=data"):
        build("lora_switch", "strategy.start=folder", "strategy.init=data")


def test_training_goes_on_from_the_start_and_needs_it_no_more(
    tiny_run: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(tiny_run / "adapters" / "en-de", tmp_path / "start"))
    tiny = ["trainer.max_steps=1", "data.directions=[en-hi]", "optim.optimizer.lr=1e-6"]
    own = train(tmp_path / "runs", *tiny, f"strategy.start={start}")
    shutil.rmtree(start)
    load(own)
    before = AdapterLibrary(tiny_run / "adapters").load("en-de").modules
    for path, after in AdapterLibrary(own / "adapters").load("en-hi").modules.items():
        torch.testing.assert_close(product(after), product(before[path]), atol=1e-3, rtol=0)
