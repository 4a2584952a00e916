"""What clients of OpenAI's API ask for and get."""

import pytest
from helpers.serving import TEXTS, events
from starlette.testclient import TestClient

from polylect.translator import Translator


def test_adapters_are_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == ["en-de", "en-fr", "en-hi"]
    assert all(m["object"] == "model" for m in listed["data"])


def test_a_completion_is_a_translation(client: TestClient, offline: Translator) -> None:
    body = {"model": "en-fr", "prompt": TEXTS[0], "temperature": 0.7, "max_tokens": 100}
    answer = client.post("/v1/completions", json=body).json()
    (expected,) = offline.translations(TEXTS[:1], "en-fr")
    (choice,) = answer["choices"]
    assert answer["object"] == "text_completion" and answer["model"] == "en-fr"
    assert choice["text"] == expected.text
    assert choice["finish_reason"] == ("length" if expected.capped else "stop")
    assert answer["usage"]["completion_tokens"] == expected.tokens
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    several = client.post("/v1/completions", json={"model": "en-fr", "prompt": TEXTS}).json()
    assert [c["text"] for c in several["choices"]] == offline.translate(TEXTS, "en-fr")
    assert [c["index"] for c in several["choices"]] == [0, 1, 2]


def chat(text, **settings) -> dict:
    system = {"role": "system", "content": "You are a helpful assistant."}
    before = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    return {
        "model": "en-de",
        "messages": [system, *before, {"role": "user", "content": text}],
        **settings,
    }


def test_the_last_message_of_a_chat_is_translated_line_by_line(
    client: TestClient, offline: Translator
) -> None:
    answer = client.post("/v1/chat/completions", json=chat("\n\n".join(TEXTS))).json()
    message = answer["choices"][0]["message"]
    assert answer["object"] == "chat.completion"
    assert message["role"] == "assistant"
    assert message["content"] == "\n\n".join(offline.translate(TEXTS, "en-de"))
    parts = [{"type": "text", "text": text} for text in TEXTS]
    answer = client.post("/v1/chat/completions", json=chat(parts)).json()
    content = answer["choices"][0]["message"]["content"]
    assert content == "\n".join(offline.translate(TEXTS, "en-de"))


def test_a_chat_streams_its_lines_in_order(client: TestClient, offline: Translator) -> None:
    text = "\n".join([*TEXTS, "", TEXTS[1]])
    sent = events(
        client, "/v1/chat/completions", **chat(text, stream_options={"include_usage": True})
    )
    *chunks, end, usage = sent
    assert {c["object"] for c in sent} == {"chat.completion.chunk"}
    assert len({c["id"] for c in sent}) == 1
    content = "".join(c["choices"][0]["delta"]["content"] for c in chunks)
    assert content == "\n".join(offline.translate([*TEXTS, "", TEXTS[1]], "en-de"))
    assert len(chunks) > 8
    assert end["choices"][0]["finish_reason"] in ("stop", "length")
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] > 0


def test_several_completions_stream_side_by_side(client: TestClient, offline: Translator) -> None:
    sent = events(client, "/v1/completions", model="en-hi", prompt=TEXTS)
    texts = [""] * 3
    for chunk in sent:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == offline.translate(TEXTS, "en-hi")
    reasons = [c["choices"][0]["finish_reason"] for c in sent]
    assert sum(reason is not None for reason in reasons) == 3


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"model": "en-da"}, 404, "model en-da does not exist; did you mean en-de"),
        ({"model": "en-de", "n": 2}, 422, "n: Input should be 1"),
        ({"messages": []}, 422, "at least 1 item"),
        ({"messages": [{"role": "system", "content": "x"}]}, 422, "none of the user"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "messages"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    client: TestClient, body: dict, status: int, sentence: str
) -> None:
    answer = client.post("/v1/chat/completions", json=chat("We read.") | body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]["message"]
