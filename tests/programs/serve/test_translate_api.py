"""Our own API: what it answers equals the offline Translator, whole or in pieces."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.serving import DIRECTIONS, TEXTS, events, read_metrics, translate
from helpers.small import build, train_a_little
from starlette.testclient import TestClient

from polylect.programs.serve.limits import Limits
from polylect.translator import Translator


def test_a_mixed_request_is_answered_as_the_offline_translator_does(
    client: TestClient, offline: Translator
) -> None:
    found = translate(client, texts=TEXTS, direction=DIRECTIONS)
    expected = offline.translations(TEXTS, DIRECTIONS)
    assert [(a["text"], a["tokens"], a["capped"]) for a in found] == [
        (t.text, t.tokens, t.capped) for t in expected
    ]
    assert [(a["direction"], a["adapter"]) for a in found] == [(d, d) for d in DIRECTIONS]
    lengths = [len(p.prompt) for p in offline.prompts(TEXTS, DIRECTIONS) if p]
    assert [a["source_tokens"] for a in found] == lengths


def test_the_adapter_decides_where_it_is_named(client: TestClient, offline: Translator) -> None:
    named = ["en-fr", None, ""]
    found = translate(client, texts=TEXTS, direction="en-de", adapter=named)
    assert [a["text"] for a in found] == offline.translate(TEXTS, "en-de", named)
    assert [a["adapter"] for a in found] == ["en-fr", "en-de", ""]
    alone = translate(client, texts=TEXTS[:1], adapter="en-fr")
    assert alone[0]["direction"] == "en-fr"


def test_an_empty_text_has_an_empty_translation(client: TestClient) -> None:
    found = translate(client, texts=["", TEXTS[0], " \n"], direction="en-de")
    assert [a["text"] == "" for a in found] == [True, False, True]
    assert events(client, "/v1/translate", texts=[""], direction="en-de")[0]["index"] == 0


def test_pieces_put_together_are_the_translation(client: TestClient, offline: Translator) -> None:
    sent = events(client, "/v1/translate", texts=TEXTS, direction=DIRECTIONS)
    pieces, whole = [""] * 3, [None] * 3
    for event in sent:
        if "piece" in event:
            assert whole[event["index"]] is None, "a piece after the end"
            pieces[event["index"]] += event["piece"]
        else:
            whole[event["index"]] = event["translation"]["text"]
    assert pieces == whole == offline.translate(TEXTS, DIRECTIONS)
    assert sum("piece" in event for event in sent) > 6, "not token by token"


def test_beam_search_streams_whole_translations(serve, make_translator) -> None:
    client = serve(make_translator(beams=2))
    sent = events(client, "/v1/translate", texts=TEXTS, direction="en-de")
    pieces = {e["index"]: e["piece"] for e in sent if "piece" in e}
    assert [pieces[i] for i in range(3)] == make_translator(beams=2).translate(TEXTS, "en-de")


def test_many_requests_at_once_are_decoded_together(
    serve, make_translator, offline: Translator
) -> None:
    client = serve(limits=Limits(wait_ms=200))
    orders = [(f"{TEXTS[i % 3]} {i}", DIRECTIONS[i % 3]) for i in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(lambda o: translate(client, texts=[o[0]], direction=o[1])[0], orders)
        )
    expected = offline.translate([text for text, _ in orders], [d for _, d in orders])
    assert [a["text"] for a in answers] == expected
    metrics = read_metrics(client)
    assert metrics["polylect_batch_rows_sum"] == metrics["polylect_texts_total"] == 24
    assert metrics["polylect_batch_rows_count"] < 12
    assert metrics["polylect_queue_texts"] == 0
    assert metrics["polylect_resident_adapters"] == metrics["polylect_adapter_loads_total"] == 3


def test_a_client_that_is_alone_is_not_kept_waiting(serve) -> None:
    client = serve(limits=Limits(wait_ms=200_000, timeout=100))  # who waits has no answer
    for text in TEXTS:
        translate(client, texts=[text], direction="en-de")


@pytest.mark.parametrize(
    ("text", "target", "direction"),
    [
        ("Der kleine Junge schläft heute in dem alten Haus.", "en", "de-en"),
        ("Le petit garçon dort aujourd'hui dans la maison.", "en", "fr-en"),
        ("छोटा लड़का आज घर में सोता है।", "en", "hi-en"),
        ("The small boy sleeps in the old house today.", "hi", "en-hi"),
        ("We read.", "hi", "en-hi"),
    ],
)
def test_the_source_language_is_detected(
    serve, library, make_translator, text: str, target: str, direction: str
) -> None:
    translator = make_translator(None)
    for served in ("de-en", "fr-en", "hi-en", "en-hi"):
        translator.load_adapter(library / "en-de", served, [served])
    (found,) = translate(serve(translator), texts=[text], target=target)
    assert found["direction"] == found["adapter"] == direction


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"texts": []}, "texts: .*at least 1 item"),
        ({"texts": "We read."}, "texts: .*valid list"),
        ({"texts": ["a"], "directon": "en-de"}, "directon: Extra inputs are not permitted"),
        ({"texts": ["a"], "direction": "en-da"}, "no adapter serves direction en-da; did you mean"),
        ({"texts": ["a"], "direction": "deu-eng"}, "codes are ISO 639-1"),
        ({"texts": ["a"], "adapter": "mine"}, "no adapter is named 'mine'"),
        ({"texts": ["a"]}, "give a direction: no adapter is set or named"),
        ({"texts": ["a", "b"], "direction": ["en-de"]}, "2 texts and 1 of direction do not match"),
        ({"texts": ["a"], "direction": "en-de", "target": "de"}, "not both"),
        ({"texts": ["a"], "target": "ta"}, "no direction into ta is served, but en-de"),
        ({"texts": ["a"], "target": "xx"}, "unknown language code 'xx'"),
        ({"texts": ["वह आज घर में पढ़ता है।"], "target": "de"}, "it cannot be told"),
        ({"texts": ["a", "word " * 4000], "direction": "en-de"}, "text 2 has .* split it"),
        ({"texts": ["a", "half \ud83d"], "direction": "en-de"}, "half of a surrogate pair|utf-8"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_cannot_be_answered_gets_one_sentence(
    client: TestClient, body: dict, sentence: str, stream: bool
) -> None:
    answer = client.post(
        "/v1/translate",
        content=json.dumps(body | {"stream": stream}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert re.search(sentence, message), message


def test_one_text_that_fails_does_not_harm_others(serve, make_translator, offline) -> None:
    """The decoding of a batch fails, as for scores that are NaN; the others are tried alone."""
    translator = make_translator()
    decode = translator.decode

    def fragile(prompts, watch=None):
        if any("poison" in prompt.source for prompt in prompts if prompt):
            raise ValueError("a poisoned batch")
        return decode(prompts, watch)

    translator.decode = fragile
    client = serve(translator, Limits(wait_ms=200))
    bodies = [{"texts": [TEXTS[0], "A poison."]}, {"texts": TEXTS}, {"texts": TEXTS[1:]}]
    with ThreadPoolExecutor(3) as pool:
        answers = list(
            pool.map(
                lambda b: client.post("/v1/translate", json=b | {"direction": "en-de"}), bodies
            )
        )
    assert [a.status_code for a in answers] == [500, 200, 200]
    assert "poison" not in answers[0].text, "what is not our own sentence stays inside"
    found = [t["text"] for t in answers[1].json()["translations"]]
    assert found == offline.translate(TEXTS, "en-de")


@pytest.mark.parametrize("strategy", ["lora", "mix_moe"])
def test_a_strategy_without_adapters_is_served(serve, strategy: str) -> None:
    module = train_a_little(build(strategy, "generation.limit=6"))
    translator = Translator(module, "cpu")
    expected = translator.translate(TEXTS[:2], ["en-de", "en-hi"])
    client = serve(translator)
    found = translate(client, texts=TEXTS[:2], direction=["en-de", "en-hi"])
    assert [a["text"] for a in found] == expected
    assert [a["adapter"] for a in found] == [None, None]
    assert client.get("/v1/adapters").json() == {"adapters": []}
    served = client.get("/v1/directions").json()
    assert served["directions"] == ["en-de", "en-fr", "en-hi"]
    assert served["languages"]["hi"] == "Hindi"
    assert client.delete("/v1/adapters/en-de").status_code == 404
