"""Adapters that are named, in some libraries or all; and what was measured of them, kept."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.small import base, batch_of, build
from helpers.small import logits as all_logits
from test_lag import CLOSE, export

from polylect.layers.adapters.counts import agreement, by_layer
from polylect.layers.adapters.router import routed_layers
from polylect.library import AdapterLibrary
from polylect.library.calibration import FILE
from polylect.strategies.lag import LAG


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of tasks on attention layers, of knowledge on feed-forward layers."""
    folder = tmp_path_factory.mktemp("libraries")
    return {
        "task": export(folder / "task", "strategy.targets=attention", seed=1),
        "knowledge": export(folder / "knowledge", "strategy.targets=ffn", seed=2),
    }


def lag(libraries: dict[str, Path], *overrides: str) -> LAG:
    given = ",".join(f"{name}: {path}" for name, path in libraries.items())
    return build("lag", f"strategy.library={{{given}}}", *overrides)


def logits(module: LAG) -> torch.Tensor:
    batch = batch_of(module)
    with torch.no_grad():
        return all_logits(module, batch)[batch.attention_mask.bool()]


SERVED = {
    "en-de": {"task": "en-hi", "knowledge": "en-fr"},
    "en-fr": {"task": "en-de", "knowledge": "en-fr"},
    "en-hi": {"task": "en-de", "knowledge": "en-de"},
}


def merged(libraries: dict[str, Path]) -> torch.Tensor:
    """Each row by the base with both of its adapters added to the weights."""
    rows = []
    probe = lag(libraries)
    batch = batch_of(probe)
    for row, direction in enumerate(batch.directions):
        model, _ = base()
        with torch.no_grad():
            for library, name in SERVED[direction].items():
                adapter = AdapterLibrary(libraries[library]).load(name)
                for path, update in adapter.modules.items():
                    weight = model.get_submodule(path).weight
                    weight += update.scaling * update.b @ update.a
            length = int(batch.attention_mask[row].sum())
            rows.append(model(input_ids=batch.input_ids[row : row + 1, :length]).logits[0])
    return torch.cat(rows)


def test_the_named_adapters_of_both_libraries_are_applied(libraries: dict[str, Path]) -> None:
    module = lag(libraries, "strategy.router=oracle")
    module.serve(SERVED)
    torch.testing.assert_close(logits(module), merged(libraries), **CLOSE)
    of_all = {side: 1.0 for side in ("source", "target")}
    assert agreement(module.routing_rows()) == {"task": of_all, "knowledge": of_all}


def test_a_direction_that_no_adapter_of_a_library_serves_has_none(
    libraries: dict[str, Path],
) -> None:
    both, task = (lag(libraries, "strategy.router=oracle") for _ in range(2))
    only = {direction: {"task": about["task"]} for direction, about in SERVED.items()}
    task.serve(only)
    alone = lag({"task": libraries["task"]}, "strategy.router=oracle")
    alone.serve(only)
    torch.testing.assert_close(logits(task), logits(alone), **CLOSE)
    assert not torch.allclose(logits(both), logits(task), **CLOSE)


def test_one_library_can_be_named_and_the_other_routed(libraries: dict[str, Path]) -> None:
    module = lag(libraries, "+strategy.named=[knowledge]")
    module.serve(SERVED)
    logits(module)
    shares = agreement(module.routing_rows())
    assert shares["knowledge"] == {"source": 1.0, "target": 1.0}
    assert all(0 <= share < 1 for share in shares["task"].values())
    routed = lag(libraries)
    routed.serve(SERVED)
    logits(routed)
    assert agreement(routed.routing_rows())["knowledge"]["source"] < 1


def test_unknown_names_are_refused_with_the_nearest(libraries: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"strategy\.named names library tasks, .* mean task\?"):
        lag(libraries, "+strategy.named=[tasks]")
    module = lag(libraries)
    with pytest.raises(ValueError, match="no adapter en-da, which x asks for; did you mean en-de"):
        module.serve({"x": {"task": "en-da"}})
    with pytest.raises(ValueError, match="direction x names library domain"):
        module.serve({"x": {"domain": "en-de"}})


def test_the_sums_of_all_directions_are_those_of_the_counts(libraries: dict[str, Path]) -> None:
    module = lag(libraries)
    logits(module)
    for row in by_layer(module.routing_rows()):
        sums = module.counts.layer_sums(row["library"], row["layer"]).sum(0)
        of_side = sums[("source", "target").index(row["side"])]
        names = routed_layers(module.backbone)[row["layer"]].lora_banks[row["library"]].names
        weights = zip(names, of_side.tolist(), strict=True)
        expected = {name: weight / float(of_side.sum()) for name, weight in weights if weight}
        assert row["shares"] == pytest.approx(expected)
        assert row["tokens"] == int(of_side.sum())
    assert agreement([]) == {}


def test_adapters_of_another_base_are_taken_if_that_is_wanted(libraries: dict[str, Path]) -> None:
    config = [f"strategy.library={libraries['task']}"]
    module = build("lag", *config, "+strategy.any_base=true")
    expected = logits(module)
    for overrides in ([], ["+strategy.any_base=true"]):
        module = LAG(
            directions=["en-de"], library=libraries["task"], any_base=bool(overrides), count=False
        )
        model, tokenizer = base()
        with torch.no_grad():
            model.get_output_embeddings().weight.view(-1)[0] += 1  # another fingerprint
        if not overrides:
            with pytest.raises(ValueError, match="it was trained on another base"):
                module.set_backbone(model, tokenizer)
        else:
            module.set_backbone(model, tokenizer)
    assert expected.isfinite().all()


# Calibration


def statistics(module: LAG) -> dict[tuple[str, str], torch.Tensor]:
    return {
        (path, name): torch.stack([bank.mean, bank.std])
        for path, layer in routed_layers(module.backbone).items()
        for name, bank in layer.lora_banks.items()
    }


def measured(
    libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch, seed: int = 0
) -> tuple[dict[tuple[str, str], torch.Tensor], bool]:
    """The statistics, and whether the text was read for them."""
    module = lag(libraries, "strategy.form=calibrated")
    batch = batch_of(module)
    batch.input_ids[0, 3] += seed
    calls = []
    forward = LAG.forward
    with monkeypatch.context() as patch:
        patch.setattr(LAG, "forward", lambda self, b: (calls.append(1), forward(self, b))[1])
        module.calibrate([batch])
    return statistics(module), bool(calls)


def test_a_calibration_is_kept_for_the_same_adapters_and_text(
    libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {name: shutil.copytree(path, tmp_path / name) for name, path in libraries.items()}
    first, read = measured(own, monkeypatch)
    assert read
    again, read = measured(own, monkeypatch)
    assert not read
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)

    other, read = measured(own, monkeypatch, seed=1)  # other text
    assert read
    assert any(not torch.equal(first[key], other[key]) for key in first)
    library = AdapterLibrary(own["task"])
    stronger = library.load("en-de")
    update = next(iter(stronger.modules.values()))
    update.b.mul_(2)
    library.save("en-de", stronger, overwrite=True)  # another adapter
    assert measured(own, monkeypatch, seed=1)[1]
    assert not measured(own, monkeypatch, seed=1)[1]
    (own["knowledge"] / FILE).write_bytes(b"damaged")
    assert measured(own, monkeypatch, seed=1)[1]


def test_a_calibration_is_kept_for_the_adapters_that_were_measured(
    libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The adapter is replaced after the strategy has read it and before it measures."""
    own = {"task": shutil.copytree(libraries["task"], tmp_path / "task")}
    module = lag(own, "strategy.form=calibrated")
    library = AdapterLibrary(own["task"])
    stronger = library.load("en-de")
    for update in stronger.modules.values():
        update.b.mul_(2)
    library.save("en-de", stronger, overwrite=True)
    module.calibrate([batch_of(module)])
    measurements, read = measured(own, monkeypatch)
    assert read
    assert any(
        not torch.equal(measurements[key], value) for key, value in statistics(module).items()
    )


def test_where_nothing_can_be_kept_it_is_measured_again(
    libraries: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = {"task": shutil.copytree(libraries["task"], tmp_path / "task")}
    (own["task"] / FILE).mkdir()  # what cannot be replaced by a file
    assert measured(own, monkeypatch)[1]
    assert "cannot be written" in capsys.readouterr().out
    assert measured(own, monkeypatch)[1]
