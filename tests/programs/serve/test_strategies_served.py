"""Every strategy is served as the offline Translator translates, whole or token by token."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from helpers.neurons import write_neurons
from helpers.serving import TEXTS, events, read_metrics, translate
from helpers.small import DIRECTIONS, base, build, train_a_little

from polylect.data.batch import collate, pad_id
from polylect.programs.serve.limits import Limits
from polylect.translator import Translator

pytestmark = pytest.mark.slow
ORDERS = [(f"{TEXTS[i % 3]} {i}", DIRECTIONS[i // 3]) for i in range(9)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What strategies are made from, by name: a library of adapters, a file of neurons."""
    folder = tmp_path_factory.mktemp("strategies")
    train_a_little(build("lora_switch")).export(folder)
    library = f"strategy.library={folder / 'adapters'}"
    neurons = f"strategy.neurons={write_neurons(folder, base()[0], DIRECTIONS)}"
    return {"lag": library, "landermt": neurons}


def translator_of(strategy: str, files: dict[str, str]) -> Translator:
    given = [files[strategy]] if strategy in files else []
    return Translator(train_a_little(build(strategy, *given, "generation.limit=6")), "cpu")


@pytest.mark.parametrize("strategy", ["lag", "landermt", "mix_moe"])
def test_a_strategy_is_served_as_it_translates_offline(
    serve, files: dict[str, str], strategy: str
) -> None:
    """Requests of one text each, decoded with whatever others wait, and one that is streamed."""
    offline = translator_of(strategy, files)
    texts, directions = [text for text, _ in ORDERS], [direction for _, direction in ORDERS]
    expected = [offline.translate([text], direction)[0] for text, direction in ORDERS]
    assert len(set(expected)) > 3, "nearly every text has the same translation"
    client = serve(translator_of(strategy, files), Limits(wait_ms=50))
    with ThreadPoolExecutor(len(ORDERS)) as pool:
        found = list(pool.map(lambda o: translate(client, texts=[o[0]], direction=o[1])[0], ORDERS))
    assert [answer["text"] for answer in found] == expected
    assert [answer["direction"] for answer in found] == directions
    batches = read_metrics(client)["polylect_batch_rows_count"]
    assert batches < len(ORDERS), "no two requests were decoded together"
    sent = events(client, "/v1/translate", texts=texts, direction=directions)
    pieces = [""] * len(ORDERS)
    for event in sent:
        pieces[event["index"]] += event.get("piece", "")
    assert pieces == expected


@pytest.mark.parametrize("strategy", ["lora_switch", "lag", "landermt", "mix_moe", "full"])
def test_what_wrote_each_token_is_told(serve, files: dict[str, str], strategy: str) -> None:
    translator = translator_of(strategy, files)
    client = serve(translator)
    body = {"texts": TEXTS, "direction": list(DIRECTIONS), "usage": True}
    plain = translate(client, **(body | {"usage": False}))
    told = translate(client, **body)
    sent = events(client, "/v1/translate", **body)
    whole = {e["index"]: e["translation"] for e in sent if "translation" in e}
    assert [whole[index] for index in range(3)] == told
    assert [answer | {"usage": None} for answer in told] == plain
    if strategy == "full":
        assert [answer["usage"] for answer in told] == [None] * 3
        return
    for answer in told:
        usage = answer["usage"]
        assert "".join(usage["tokens"]) == answer["text"]
        assert len(usage["shares"]) == len(usage["tokens"]) > 0
        assert all(sum(token) == pytest.approx(1, abs=1e-3) for token in usage["shares"])
    names = {name for answer in told for name in answer["usage"]["names"]}
    if strategy == "lora_switch":
        for answer in told:
            own = answer["usage"]["names"].index(answer["direction"])
            assert {token[own] for token in answer["usage"]["shares"]} == {1}
    elif strategy == "lag":
        check_against_the_trace(translator, told)
    elif strategy == "mix_moe":
        assert {name.split()[0] for name in names} == {"LM", "MT"}
    else:
        assert names == {"general neurons", "own neurons"}


def check_against_the_trace(translator: Translator, told: list[dict]) -> None:
    """Of the third text alone: counted by hand, what the layers chose at each position."""
    module, (prompt,) = translator.module, translator.prompts(TEXTS[2:], DIRECTIONS[2])
    target = module.template.encode_target(module.tokenizer, told[2]["text"], DIRECTIONS[2])
    batch = collate([replace(prompt, target=target)], pad_id(module.tokenizer), "right")
    traces = list(module.trace(batch).values())
    usage = told[2]["usage"]
    for token, shares in enumerate(usage["shares"]):
        at = len(prompt.prompt) - 1 + token
        chosen = Counter(names[int(best[0, at])] for names, best in traces)
        expected = [chosen[name] / len(traces) for name in usage["names"]]
        assert shares == pytest.approx(expected, abs=1e-3)
