"""LAG, Arrow and SpectR; what all strategies do is in test_contract."""

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.small import ROWS, base, batch_of, build, limited_prompts
from helpers.small import logits as all_logits
from helpers.tiny import DATA, LENGTH, MODEL, config, folders
from peft import ArrowConfig, create_arrow_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from polylect.data.batch import IGNORED, TranslationBatch, collate, pad_id
from polylect.layers.adapters import spectral_scores
from polylect.layers.adapters.router import routed_layers
from polylect.layers.adapters.selectors import ModelVote, Named
from polylect.library import Adapter, AdapterLibrary, LowRank, base_fingerprint
from polylect.library.calibration import FILE
from polylect.library.peft_format import CONFIG, WEIGHTS
from polylect.programs.evaluate import main
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding import open_rows
from polylect.strategies.decoding.translation import Watch
from polylect.strategies.lag import LAG

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def export(folder: Path, *overrides: str, seed: int = 1) -> Path:
    """A library of adapters that LoRA-switch might have trained."""
    module = build("lora_switch", *overrides)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    module.export(folder)
    return folder / "adapters"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter per direction, of different ranks."""
    ranks = "strategy.rank={en-de: 3, en-fr: 2, en-hi: 4}"
    return export(tmp_path_factory.mktemp("library"), ranks)


def lag(library: Path, *overrides: str, strategy: str = "lag") -> LAG:
    return build(strategy, f"strategy.library={library}", *overrides)


def logits(module: TranslationModule, batch: TranslationBatch) -> torch.Tensor:
    """Of the real tokens; padding goes through the base here and through adapters elsewhere."""
    with torch.no_grad():
        return all_logits(module, batch)[batch.attention_mask.bool()]


def one_of(library: Path, name: str, folder: Path) -> Path:
    shutil.copytree(library / name, folder / name)
    return folder


def differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return not torch.allclose(one, other, **CLOSE)


# Identities


@pytest.mark.parametrize(
    ("strategy", "level"),
    [
        ("lag", "token"),
        ("arrow", "token"),
        ("spectr", "token"),
        ("lag", "prompt"),
        ("lag", "sentence"),
        ("lag", "model"),
    ],
)
def test_one_adapter_is_that_adapter(
    strategy: str, level: str, library: Path, tmp_path: Path
) -> None:
    plain = build("lora_library", f"strategy.library={library}")
    batch = batch_of(plain)
    with plain.use_adapter("en-fr"):
        expected = logits(plain, batch)
    one = one_of(library, "en-fr", tmp_path)
    module = lag(one, f"strategy.level={level}", strategy=strategy)
    torch.testing.assert_close(logits(module, batch), expected, **CLOSE)


def test_the_oracle_is_the_library_with_the_directions_named(library: Path) -> None:
    plain = build("lora_library", f"strategy.library={library}")
    module = lag(library, "strategy.router=oracle")
    batch = batch_of(plain)
    torch.testing.assert_close(logits(module, batch), logits(plain, batch), **CLOSE)
    assert {row["agreement"] for row in module.routing_rows()} == {1.0}
    assert {v for n, v in module.telemetry().items() if n.endswith("agreement")} == {1.0}


def test_k_goes_from_arrow_to_spectr(library: Path) -> None:
    batch = batch_of(lag(library))
    arrow = logits(lag(library, "strategy.k=1", strategy="arrow"), batch)
    spectr = logits(lag(library, strategy="spectr"), batch)
    assert differs(arrow, spectr)
    torch.testing.assert_close(logits(lag(library, "strategy.k=1"), batch), arrow, **CLOSE)
    torch.testing.assert_close(logits(lag(library, "strategy.k=3"), batch), spectr, **CLOSE)
    torch.testing.assert_close(logits(lag(library), batch), spectr, **CLOSE)


def test_two_libraries_are_both_applied(library: Path, tmp_path: Path) -> None:
    """With one adapter each they are one adapter with the rows of both."""
    other = export(tmp_path / "other", "strategy.rank=2", "strategy.targets=ffn", seed=2)
    task = one_of(library, "en-de", tmp_path / "task")
    knowledge = one_of(other, "en-hi", tmp_path / "knowledge")
    both = AdapterLibrary(tmp_path / "both")
    modules = dict(AdapterLibrary(task).load("en-de").modules)
    for path, update in AdapterLibrary(knowledge).load("en-hi").modules.items():
        first = modules[path]
        a = torch.cat([first.a, update.a])
        b = torch.cat([first.scaling * first.b, update.scaling * update.b], dim=1)
        modules[path] = LowRank(a, b, 1.0)
    both.save("both", Adapter(modules))
    plain = build("lora_library", f"strategy.library={both.path}")
    module = lag(f"{{task: {task}, knowledge: {knowledge}}}")
    batch = batch_of(plain)
    with plain.use_adapter("both"):
        expected = logits(plain, batch)
    torch.testing.assert_close(logits(module, batch), expected, **CLOSE)
    assert {row["library"] for row in module.routing_rows()} == {"task", "knowledge"}
    assert {row["layer"] for row in module.routing_rows() if row["library"] == "knowledge"} == {
        path for path in modules if "mlp" in path
    }


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("lag", []),
        ("lag", ["strategy.level=model"]),
        ("arrow", ["strategy.k=3", "strategy.mixing=aligned"]),
        ("arrow", ["strategy.k=2"]),
        ("spectr", ["strategy.k=2"]),
    ],
)
def test_how_adapters_are_stored_does_not_matter(
    strategy: str, settings: list[str], library: Path, tmp_path: Path
) -> None:
    """With rank 8 and other factors; in some layers an adapter of zeros stands beside them."""
    other, before = AdapterLibrary(tmp_path), AdapterLibrary(library)
    for name in before.names:
        modules = {}
        for path, update in before.load(name).modules.items():
            rank = len(update.a)
            mix = torch.randn(8, 8)
            a = mix @ torch.cat([update.a, torch.randn(8 - rank, update.a.shape[1])])
            b = functional.pad(update.b, (0, 8 - rank)) @ mix.inverse()
            modules[path] = LowRank(a, b * 100, update.scaling / 100)
        other.save(name, Adapter(modules, before.about(name)))
    zero = {path: LowRank(update.a, 0 * update.b, 1.0) for path, update in modules.items()}
    other.save("zero", Adapter(zero))
    one, stored = (lag(path, *settings, strategy=strategy) for path in (library, tmp_path))
    batch = batch_of(one)
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(logits(stored, batch), logits(one, batch), **close)
    for row, expected in zip(stored.routing_rows(), one.routing_rows(), strict=True):
        assert row["shares"] == pytest.approx(expected["shares"], abs=1e-4)


def separated(folder: Path) -> AdapterLibrary:
    """Four adapters of one rank whose strongest directions stand out."""
    library = AdapterLibrary(folder)
    for name in ("a", "b", "c", "d"):
        modules = {}
        for layer in range(2):
            for projection in ("q_proj", "v_proj"):
                path = f"model.layers.{layer}.self_attn.{projection}"
                width, out = base()[0].get_submodule(path).weight.T.shape
                a = torch.linalg.qr(torch.randn(width, 3))[0].T
                b = torch.linalg.qr(torch.randn(out, 3))[0] * torch.tensor([4.0, 1.0, 0.3])
                modules[path] = LowRank(a, b, 2 / 3)
        library.save(name, Adapter(modules))
    return library


def test_arrow_is_that_of_peft(tmp_path: Path) -> None:
    library = separated(tmp_path)
    module = lag(tmp_path, "strategy.k=2", "strategy.temperature=0.7", strategy="arrow")
    batch = batch_of(module, ROWS[:1])
    paths = [str(tmp_path / name) for name in library.names]
    arrow = ArrowConfig(top_k=2, router_temperature=0.7)
    peer = create_arrow_model(base()[0], paths, arrow).eval()
    with torch.no_grad():
        expected = peer(input_ids=batch.input_ids).logits[0]
        plain = base()[0](input_ids=batch.input_ids).logits[0]
    actual = logits(module, batch)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert (actual - plain).abs().max() > 0.1


def test_factors_may_be_mixed_before_they_are_multiplied(tmp_path: Path) -> None:
    """The mean of all factors is one adapter, here of the factors as they were trained."""
    library = separated(tmp_path / "four")
    adapters = [library.load(name) for name in library.names]
    mean = {
        path: LowRank(
            torch.stack([each.modules[path].a for each in adapters]).mean(0),
            torch.stack([each.modules[path].b for each in adapters]).mean(0),
            2 / 3,
        )
        for path in adapters[0].modules
    }
    merged = AdapterLibrary(tmp_path / "one")
    merged.save("mean", Adapter(mean))
    batch = batch_of(lag(merged.path))
    expected = logits(lag(merged.path), batch)
    uniform = ["strategy.router=uniform", "+strategy.mixing=trained"]
    for budget in ("strategy.budget_mib=1024", "strategy.budget_mib=0.005"):
        module = lag(library.path, *uniform, budget)
        assert (module.pages is None) == (budget == "strategy.budget_mib=1024")
        torch.testing.assert_close(logits(module, batch), expected, **CLOSE)
    assert differs(logits(lag(library.path, uniform[0]), batch), expected)


# Decoding


@pytest.mark.parametrize(
    ("strategy", "level", "beams"),
    [("lag", "token", 1), ("arrow", "prompt", 3), ("lag", "sentence", 3), ("lag", "last", 3)],
)
def test_decoding_with_a_cache_is_decoding_without(
    strategy: str, level: str, beams: int, library: Path
) -> None:
    module = lag(library, f"strategy.level={level}", "strategy.k=2", strategy=strategy)
    prompts = [module.prompt(source, direction) for direction, source, _ in ROWS]
    batch = collate(prompts, pad_id(module.tokenizer), "left")
    results = []
    for cached in (True, False):
        with torch.no_grad(), module.routing(batch):
            results.append(
                module.backbone.generate(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    max_new_tokens=6,
                    min_new_tokens=6,
                    num_beams=beams,
                    do_sample=False,
                    use_cache=cached,
                )
            )
    assert torch.equal(*results)


@pytest.mark.parametrize("level", ["token", "prompt", "sentence", "last", "model"])
def test_rows_that_leave_and_join_have_their_own_choices(
    level: str, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_rows, "STEPS", 2)
    length = ["generation.ratio=0", "generation.extra=9"]
    module = lag(library, f"strategy.level={level}", "strategy.k=2", *length)
    prompts = limited_prompts(module, 9, 2, 6, 1, 9, 4, 9, 3)
    alone = [module.translate([prompt])[0] for prompt in prompts]
    waiting = list(enumerate(prompts))[4:]
    watch = Watch(waits=lambda: bool(waiting), join=lambda _: [waiting.pop(0)])
    together = dict(module.translate_as_decoded(prompts[:4], watch))
    assert [together[number] for number in range(len(prompts))] == alone
    assert len({translation.text for translation in alone}) > 2


@pytest.mark.parametrize(("level", "voters"), [("model", slice(None)), ("last", slice(-1, None))])
def test_all_layers_together_take_whom_most_tokens_of_the_prompt_chose(
    level: str, voters: slice, tmp_path: Path
) -> None:
    library = export(tmp_path, "strategy.rank=3")
    module = lag(library, f"strategy.level={level}", strategy="spectr")
    batch = batch_of(module)
    prompts = batch.attention_mask.sum(1) - (batch.labels != IGNORED).sum(1)
    plain, tallies = build("frozen"), [Counter() for _ in ROWS]

    def vote(linear: torch.nn.Module, given: tuple[torch.Tensor], path: str) -> None:
        bank = routed_layers(module.backbone)[path].lora_banks["library"]
        for x, length, tally in zip(given[0], prompts.tolist(), tallies, strict=True):
            best = spectral_scores(x[:length][voters], bank.factor("a")).argmax(1).tolist()
            tally.update(bank.names[i] for i in best)

    for path in routed_layers(module.backbone):
        linear = plain.backbone.get_submodule(path)
        linear.register_forward_pre_hook(partial(vote, path=path))
    logits(plain, batch)
    expected = [max(sorted(tally), key=tally.__getitem__) for tally in tallies]
    assert len(set(expected)) > 1
    for names, chosen in module.trace(batch).values():
        for row, own in zip(chosen, expected, strict=True):
            assert {names[i] for i in row[row >= 0].tolist()} == {own}
    named = replace(batch, directions=tuple(expected))
    wanted = logits(lag(library, "strategy.router=oracle"), named)
    torch.testing.assert_close(logits(module, batch), wanted, **CLOSE)
    alone = torch.cat([logits(module, batch_of(module, [row])) for row in ROWS])
    torch.testing.assert_close(alone, wanted, **CLOSE)


def test_a_vote_that_is_refused_leaves_the_open_one_alone(library: Path) -> None:
    module = lag(library, "strategy.level=model")
    batch, other = batch_of(module), batch_of(module, ROWS[:1])
    expected = logits(module, batch)
    refused = []

    def intrude(*_: object) -> None:
        with pytest.raises(RuntimeError, match="a route is open already"), module.routing(other):
            pass
        refused.append(module.router.selector("library"))

    handle = module.backbone.model.layers[1].register_forward_pre_hook(intrude)
    assert torch.equal(logits(module, batch), expected)
    handle.remove()
    vote, after = refused  # a vote is taken and then followed
    assert isinstance(vote, ModelVote)
    assert isinstance(after, Named)


def test_threads_vote_one_after_the_other(library: Path) -> None:
    module = lag(library, "strategy.level=model", strategy="spectr")
    batches = [batch_of(module, [row]) for row in ROWS]
    expected = [logits(module, batch) for batch in batches]

    def several(index: int) -> bool:
        return all(torch.equal(logits(module, batches[index]), expected[index]) for _ in range(4))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(several, range(4)))


def test_who_serves_does_not_change_within_a_route(library: Path) -> None:
    module = lag(library, "strategy.router=oracle")
    batch = batch_of(module)
    expected = logits(module, batch)
    named = {"en-de": {"library": "en-fr"}}
    with module.routing(batch):
        for change in (lambda: module.serve(named), lambda: module.calibrate([batch])):
            with pytest.raises(RuntimeError, match="a route is open already"):
                change()
    assert torch.equal(logits(module, batch), expected)
    with pytest.raises(ValueError, match="no adapter en-xx"):
        module.serve({**named, "en-hi": {"library": "en-xx"}})
    assert torch.equal(logits(module, batch), expected)
    module.serve(named)
    assert not torch.equal(logits(module, batch), expected)


# Libraries


def test_a_layer_routes_among_the_adapters_that_change_it(library: Path, tmp_path: Path) -> None:
    mixed = AdapterLibrary(tmp_path)
    for name in ("en-de", "en-fr"):
        shutil.copytree(library / name, tmp_path / name)
    other = export(tmp_path / "..other", "strategy.targets=[q_proj]", "strategy.rank=1")
    shutil.copytree(other / "en-hi", tmp_path / "en-hi")
    zero = {
        path: LowRank(u.a, 0 * u.b, 1.0) if "v_proj" in path else u
        for path, u in mixed.load("en-de").modules.items()
    }
    mixed.save("en-zz", Adapter(zero, mixed.about("en-de") | {"directions": ["en-zz"]}))
    module = lag(tmp_path)
    layers = module.backbone.model.layers[1].self_attn
    names = {
        projection: getattr(layers, projection).lora_banks["library"].names
        for projection in ("q_proj", "k_proj", "v_proj")
    }
    assert names == {
        "q_proj": ("en-de", "en-fr", "en-hi", "en-zz"),
        "k_proj": ("en-de", "en-fr", "en-zz"),
        "v_proj": ("en-de", "en-fr"),
    }
    assert logits(module, batch_of(module)).isfinite().all()


def test_the_base_stays_what_it_was(library: Path) -> None:
    model, _ = base()
    module = lag(library)
    logits(module, batch_of(module))
    assert module.owned_names() == set()
    assert set(module.backbone.state_dict()) == set(model.state_dict())
    assert base_fingerprint(module.backbone) == base_fingerprint(model)


def test_weak_arrows_and_new_alignments_are_told_once(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero = AdapterLibrary(one_of(library, "en-de", tmp_path)).load("en-de")
    modules = {path: LowRank(u.a, 0 * u.b, 1.0) for path, u in zero.modules.items()}
    AdapterLibrary(tmp_path).save("nil", Adapter(modules))
    (tmp_path / "en-de" / "aligned.safetensors").unlink(missing_ok=True)
    lag(tmp_path)
    stdout = capsys.readouterr().out
    assert "2 adapters aligned" in stdout
    assert "of 1 adapters arrows say little: nil does nothing in 14 of 14 modules" in stdout
    lag(tmp_path)
    assert "aligned" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / "en-de")
    with pytest.raises(ValueError, match=r"no adapter of .* changes anything"):
        lag(tmp_path)


@pytest.mark.slow
def test_a_thousand_adapters_are_paged(tmp_path: Path) -> None:
    """They take four times the memory that they are given."""
    path = "model.layers.0.self_attn.q_proj"
    library = AdapterLibrary(tmp_path)
    first = library.save(
        "n000", Adapter({path: LowRank(torch.ones(2, 32), torch.ones(32, 2), 1.0)})
    )
    key = f"base_model.model.{path}.lora_"
    for i in range(1, 1000):
        folder = tmp_path / f"n{i:03}"
        folder.mkdir()
        shutil.copyfile(first / CONFIG, folder / CONFIG)
        factors = {f"{key}A.weight": torch.randn(2, 32), f"{key}B.weight": torch.randn(32, 2)}
        save_file(factors, folder / WEIGHTS)
    module = lag(tmp_path, "strategy.k=5", "strategy.budget_mib=0.12")
    batch = batch_of(module, ROWS[:2])
    actual = logits(module, batch)
    pages = module.pages
    tokens = int(batch.attention_mask.sum())
    assert 0 < pages.loads <= 6 * tokens < 2000
    assert pages.bytes <= pages.budget_bytes == int(0.12 * 2**20)
    assert actual.isfinite().all()
    chosen = {name for row in module.routing_rows() for name in row["shares"]}
    assert len(chosen) > tokens / 2


def test_adapters_on_the_output_head_are_chosen_token_by_token(tmp_path: Path) -> None:
    folder = export(tmp_path, "strategy.targets=[lm_head,v_proj]")
    batch = batch_of(lag(folder))
    assert logits(lag(folder), batch).isfinite().all()
    for by_row in (
        "level=prompt",
        "level=sentence",
        "level=model",
        "router=oracle",
        "+named=[library]",
    ):
        key = by_row.replace("+", "+strategy.") if "+" in by_row else f"strategy.{by_row}"
        with pytest.raises(ValueError, match=r"output head \(lm_head\).*strategy\.level=token"):
            lag(folder, key)


# What is told


def test_shares_are_told_by_layer_and_side(library: Path) -> None:
    module = lag(library, "strategy.k=2")
    batch = batch_of(module)
    logits(module, batch)
    learned = (batch.labels != -100).sum().item()
    rows = module.routing_rows()
    one = [row for row in rows if row["layer"] == "model.layers.0.mlp.up_proj"]
    assert sum(row["tokens"] for row in one if row["side"] == "target") == learned
    assert sum(row["tokens"] for row in one) == batch.attention_mask.sum()
    assert {row["direction"] for row in one} == {"en-de", "en-fr", "en-hi"}
    assert all(sum(row["shares"].values()) == pytest.approx(1) for row in rows)
    assert all(row["shares"].get(row["direction"], 0) == row["agreement"] for row in rows)
    json.dumps(rows)
    metrics = module.telemetry()
    side = "routing/model.layers.0.mlp.up_proj/library/source"
    assert sum(v for n, v in metrics.items() if n.startswith(f"{side}/share/")) == pytest.approx(1)
    assert 0 <= metrics[f"{side}/agreement"] <= 1
    module.counts.clear()
    assert module.telemetry() == {}
    silent = lag(library, "+strategy.count=false")
    logits(silent, batch)
    assert silent.telemetry() == {} and silent.routing_rows() == []


@pytest.mark.parametrize(("ends", "beams"), [(False, 1), (True, 1), (False, 2), (True, 2)])
def test_a_row_that_has_ended_is_not_counted_on(ends: bool, beams: int, library: Path) -> None:
    """By its cap, or by an end token: rows together are counted as each of them alone."""
    ratio = 0 if ends else 0.5
    length = [f"generation.ratio={ratio}", "generation.extra=4"]
    module = lag(library, *length, f"generation.beams={beams}")
    prompts = [module.prompt(source, direction) for direction, source, _ in ROWS]
    if ends:  # what the first row writes first
        batch = collate(prompts, pad_id(module.tokenizer), "left")
        end = int(all_logits(module, batch)[0, -1].argmax())
        module.ends = lambda: [end]
        module.counts.clear()

    def tokens() -> Counter[tuple[str, str, str]]:
        rows, counted = module.routing_rows(), Counter()
        for row in rows:
            counted[row["layer"], row["direction"], row["side"]] = row["tokens"]
        module.counts.clear()
        return counted

    lengths = {t.tokens for t in module.translate(prompts)}
    together = tokens()
    assert len(lengths) > 1
    alone: Counter[tuple[str, str, str]] = Counter()
    for prompt in prompts:
        module.translate([prompt])
        alone += tokens()
    assert together == alone
    assert {side for *_, side in together} == {"source", "target"}


def test_a_trace_names_the_adapter_of_each_token(library: Path) -> None:
    module = lag(library)
    batch = batch_of(module)
    traces = module.trace(batch)
    module.counts.clear()
    logits(module, batch)
    for (name, layer), (names, chosen) in traces.items():
        assert torch.equal(chosen >= 0, batch.attention_mask.bool())
        sums = module.counts.layer_sums(name, layer).sum((0, 1))
        assert torch.equal(chosen[chosen >= 0].bincount(minlength=len(names)).double(), sums)


def test_calibration_compares_with_the_adapters_own_text(library: Path) -> None:
    module = lag(library, "strategy.form=calibrated")
    batch = batch_of(module)
    before = logits(module, batch)
    module.counts.clear()
    module.calibrate([batch])
    assert module.routing_rows() == []
    assert differs(logits(module, batch), before)
    with pytest.raises(ValueError, match=r"adapter 'en-(fr|hi)' cannot be calibrated"):
        module.calibrate([batch_of(module, ROWS[:2])])


def test_a_calibration_that_is_not_finite_is_measured_again(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library, tmp_path / "library")
    module = lag(tmp_path / "library", "strategy.form=calibrated")
    batch = batch_of(module)
    module.calibrate([batch])
    expected = logits(module, batch)
    file = tmp_path / "library" / FILE
    tensors, about = load_file(file), safe_open(file, "pt").metadata()
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, file, about)
    module = lag(tmp_path / "library", "strategy.form=calibrated")
    module.calibrate([batch])
    assert torch.equal(logits(module, batch), expected)
    module.backbone.model.layers[0].input_layernorm.weight.data.fill_(float("nan"))
    file.unlink()
    with pytest.raises(ValueError, match=r"calibrated, on text of its own en-de has NaN"):
        module.calibrate([batch])
    assert not file.exists()


def test_it_is_scored_without_training(library: Path, tmp_path: Path) -> None:
    given = ["strategy=lag", f"strategy.library={library}", *(f"+{o}" for o in LENGTH)]
    overrides = [*MODEL, "data=tongues", *DATA, *given, "limit=2"]
    main(config("evaluate", f"runs={tmp_path}", *overrides))
    (made,) = folders(tmp_path)
    scores = json.loads((made / "scores.json").read_text(encoding="utf-8"))
    assert set(scores) == {"en-de", "en-fr"}


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["strategy.library=nowhere"], "strategy.library=nowhere holds no adapter"),
        (["strategy.library={}"], "names no library"),
        (["strategy.library={a.b: LIBRARY}"], "use letters, digits"),
        (["strategy.library=LIBRARY", "strategy.router=lagg"], "did you mean lag"),
        (["strategy.library=LIBRARY", "strategy.budget_mib=0"], "budget_mib must be positive"),
    ],
)
def test_mistakes_are_found_at_once(overrides: list[str], sentence: str, library: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        build("lag", *(override.replace("LIBRARY", str(library)) for override in overrides))


def test_adapters_of_another_base_are_refused(library: Path, tmp_path: Path) -> None:
    adapter = AdapterLibrary(library).load("en-de")
    other = Adapter(adapter.modules, adapter.about | {"base_fingerprint": "0" * 64})
    AdapterLibrary(tmp_path).save("other", other)
    with pytest.raises(ValueError, match=r"'other' of .* does not fit: it was trained on another"):
        lag(tmp_path)


def test_two_adapters_for_one_direction_have_to_be_told_apart(
    library: Path, tmp_path: Path
) -> None:
    """As in a `lora_library`; routers that go by no direction take both."""
    both = AdapterLibrary(shutil.copytree(library, tmp_path / "both"))
    both.save("later", both.load("en-fr"))
    assert both.about("later")["directions"] == ["en-fr"]
    sentence = r"direction en-fr is served by en-fr and by later of .*both: choose one with strat"
    oracle = lag(both.path, "strategy.router=oracle")
    batch = batch_of(oracle)
    for use in (oracle.routing, lambda batch: oracle.calibrate([batch])):
        with pytest.raises(ValueError, match=sentence):
            use(batch)
    with pytest.raises(ValueError, match=sentence):
        lag(both.path, "+strategy.named=[library]").routing(batch)
    oracle.serve({"en-fr": {"library": "later"}})
    expected = logits(oracle, batch)
    chosen = lag(both.path, "strategy.router=oracle", "+strategy.adapters={later: [en-fr]}")
    assert torch.equal(logits(chosen, batch), expected)
    with pytest.raises(ValueError, match=r"strategy.adapters names latter.* did you mean later"):
        lag(both.path, "+strategy.adapters={latter: [en-fr]}")
    free = lag(both.path)
    assert logits(free, batch).isfinite().all()
    unknown = {row["agreement"] for row in free.routing_rows() if row["direction"] == "en-fr"}
    assert unknown == {None}


def test_the_oracle_refuses_a_direction_that_nobody_serves(library: Path) -> None:
    module = lag(library, "strategy.router=oracle")
    batch = batch_of(module)
    batch.directions = ("en-de", "en-de", "en-fr", "en-da")
    with pytest.raises(ValueError, match="no adapter serves direction en-da; did you mean en-de"):
        module.routing(batch)
    lag(library).routing(batch)
