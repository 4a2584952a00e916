"""Every strategy is served as the offline Translator translates, whole or token by token."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.neurons import write_neurons
from helpers.serving import TEXTS, events, read_metrics, translate
from helpers.small import DIRECTIONS, base, build, train_a_little

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
