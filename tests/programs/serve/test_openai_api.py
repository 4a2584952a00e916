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
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            422,
            "messages.0.content must be a text, or a list of parts of the type text",
        ),
        ({"logprobs": True}, 422, "logprobs is not possible here: leave it out"),
        ({"tools": [{"type": "function"}]}, 422, "tools is not possible here"),
        ({"response_format": {"type": "json_object"}}, 422, "response_format is not possible"),
        ({"max_tokens": 0}, 422, "max_tokens: Input should be greater than or equal to 1"),
        ({"stop": [1]}, 422, "stop must be a text, or a list of texts"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    client: TestClient, body: dict, status: int, sentence: str
) -> None:
    answer = client.post("/v1/chat/completions", json=chat("We read.") | body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]["message"]


def test_what_clients_send_although_it_changes_nothing_is_taken(client: TestClient) -> None:
    idle = {"temperature": 0, "top_p": 1, "seed": 3, "user": "me", "frequency_penalty": 0.5}
    unset = {"stop": None, "logprobs": False, "tools": [], "response_format": {"type": "text"}}
    expected = client.post("/v1/chat/completions", json=chat(TEXTS[0])).json()
    answer = client.post("/v1/chat/completions", json=chat(TEXTS[0], **idle, **unset, n=1)).json()
    assert answer["choices"] == expected["choices"]


@pytest.mark.parametrize(
    "body",
    [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"logprobs": 5}, {"prompt": [1, 2, 3]}],
)
def test_completions_of_another_kind_are_refused(client: TestClient, body: dict) -> None:
    answer = client.post("/v1/completions", json={"model": "en-de", "prompt": "We read."} | body)
    assert answer.status_code == 422
    assert next(iter(body)) in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_no_translation_has_more_tokens_than_asked_for(
    client: TestClient, make_translator, name: str, most: int
) -> None:
    limited = make_translator(limit=min(most, 8))  # which is what the server gives
    (expected,) = limited.translations(TEXTS[:1], "en-fr")
    asked = chat(TEXTS[0], model="en-fr", **{name: most})
    answer = client.post("/v1/chat/completions", json=asked).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == expected.text
    assert answer["usage"]["completion_tokens"] == expected.tokens <= most
    assert choice["finish_reason"] == ("length" if expected.capped else "stop")
    sent = events(client, "/v1/chat/completions", **asked)
    deltas = [chunk["choices"][0]["delta"] for chunk in sent]
    assert "".join(delta.get("content", "") for delta in deltas) == expected.text


def test_an_answer_ends_before_a_stop(client: TestClient, offline: Translator) -> None:
    text = "\n".join(TEXTS)
    whole = "\n".join(offline.translate(TEXTS, "en-de"))
    for stop in (whole[3:6], [whole[-4:], "never"], "\n", whole[:2]):
        stops = [stop] if isinstance(stop, str) else stop
        expected = whole[: min(place for s in stops if (place := whole.find(s)) >= 0)]
        answer = client.post("/v1/chat/completions", json=chat(text, stop=stop)).json()
        (choice,) = answer["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
        sent = events(client, "/v1/chat/completions", **chat(text, stop=stop))
        deltas = [chunk["choices"][0]["delta"] for chunk in sent]
        assert "".join(delta.get("content", "") for delta in deltas) == expected
        assert sent[-1]["choices"][0]["finish_reason"] == "stop"
        assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(sent) - 1)]


def test_a_model_can_be_asked_for_by_its_name(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/en-de").json() == listed[0]
    answer = client.get("/v1/models/en-dd")
    assert answer.status_code == 404
    assert "did you mean en-de" in answer.json()["error"]["message"]
