"""Adapters that come and go while the server runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.serving import DIRECTIONS, TEXTS, translate
from starlette.testclient import TestClient

from polylect.library.folder import CONFIG, WEIGHTS


@pytest.fixture
def own(library: Path, tmp_path: Path) -> Path:
    """A folder of adapters of the test's own: that of en-fr under two names."""
    shutil.copytree(library / "en-fr", tmp_path / "own" / "french")
    shutil.copytree(library / "en-fr", tmp_path / "own" / "deep" / "french")
    shutil.copytree(library / "en-fr", tmp_path / "secret")
    return tmp_path / "own"


def test_an_adapter_is_loaded_used_and_unloaded(serve, make_translator, offline, own) -> None:
    translator = make_translator()
    before = translator.fingerprint()
    client = serve(translator, adapters=own)
    body = {"folder": "deep/french", "name": "mine", "directions": ["en-ta"]}
    answer = client.post("/v1/adapters", json=body)
    assert answer.status_code == 201
    loaded = {"name": "mine", "directions": ["en-ta"], "resident": True}
    assert answer.json() == loaded
    listed = client.get("/v1/adapters").json()["adapters"]
    assert [a["name"] for a in listed] == ["en-de", "en-fr", "en-hi", "mine"]
    assert loaded in listed
    assert "en-ta" in client.get("/v1/directions").json()["directions"]
    (found,) = translate(client, texts=TEXTS[:1], direction="en-ta")
    assert found["adapter"] == "mine"
    assert client.post("/v1/adapters", json=body).status_code == 409
    assert client.delete("/v1/adapters/mine").status_code == 204
    assert client.delete("/v1/adapters/mine").status_code == 404
    answer = client.post("/v1/translate", json={"texts": ["a"], "direction": "en-ta"})
    assert answer.status_code == 422
    found = translate(client, texts=TEXTS, direction=DIRECTIONS)
    assert [a["text"] for a in found] == offline.translate(TEXTS, DIRECTIONS)
    assert translator.fingerprint() == before


def test_files_that_are_replaced_are_used_from_then_on(
    serve, make_translator, offline, own, library
) -> None:
    client = serve(make_translator(None), adapters=own)
    body = {"folder": "french", "directions": ["en-fr"]}
    assert client.post("/v1/adapters", json=body).status_code == 201
    (before,) = translate(client, texts=TEXTS[:1], direction="en-fr")
    shutil.copytree(library / "en-hi", own / "french", dirs_exist_ok=True)
    (after,) = translate(client, texts=TEXTS[:1], direction="en-fr")
    assert before["text"] == offline.translate(TEXTS[:1], "en-fr")[0]
    assert after["text"] == offline.translate(TEXTS[:1], "en-fr", "en-hi")[0]


def test_an_adapter_whose_files_are_gone_serves_on_while_it_is_in_memory(
    serve, make_translator, offline, own
) -> None:
    client = serve(make_translator(None), adapters=own)
    client.post("/v1/adapters", json={"folder": "french", "directions": ["en-fr"]})
    shutil.rmtree(own / "french")
    (found,) = translate(client, texts=TEXTS[:1], direction="en-fr")
    assert found["text"] == offline.translate(TEXTS[:1], "en-fr")[0]


@pytest.mark.parametrize(
    "folder", ["../secret", "deep/../../secret", ".", "", "/", "/etc", "..", "a\0b", "x" * 150]
)
def test_what_lies_elsewhere_is_refused(serve, make_translator, own, folder: str) -> None:
    client = serve(make_translator(), adapters=own)
    answer = client.post("/v1/adapters", json={"folder": folder})
    assert answer.status_code in (403, 422)
    assert str(own.parent) not in answer.text


def test_an_absolute_path_and_a_link_that_lead_elsewhere_are_refused(
    serve, make_translator, own
) -> None:
    client = serve(make_translator(), adapters=own)
    (own / "link").symlink_to(own.parent / "secret")
    for folder in (str(own.parent / "secret"), "link"):
        answer = client.post("/v1/adapters", json={"folder": folder})
        assert answer.status_code == 403
    assert client.post("/v1/adapters", json={"folder": str(own / "french")}).status_code == 201


def test_without_a_folder_nothing_is_loaded(serve, make_translator) -> None:
    answer = serve(make_translator()).post("/v1/adapters", json={"folder": "french"})
    assert answer.status_code == 403
    assert "without adapters=FOLDER" in answer.json()["error"]["message"]


def damage(folder: Path, how: str) -> None:
    weights = folder / WEIGHTS
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "header":
        weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
    elif how == "config":
        (folder / CONFIG).write_text("{", encoding="utf-8")
    elif how == "kind":
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / CONFIG).write_text(json.dumps(config | {"peft_type": "IA3"}), encoding="utf-8")
    elif how == "pickle":
        torch.save({"base_model.model.x": torch.ones(1)}, folder / "adapter_model.bin")
        weights.unlink()
    elif how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize("how", ["cut", "header", "config", "kind", "pickle", "empty"])
def test_a_bad_adapter_is_refused_and_harms_nothing(
    serve, make_translator, offline, own, how: str
) -> None:
    damage(own / "french", how)
    client = serve(make_translator(), adapters=own)
    answer = client.post("/v1/adapters", json={"folder": "french"})
    assert answer.status_code == 422, answer.text
    message = answer.json()["error"]["message"]
    assert "french" in message and str(own.parent) not in message
    listed = client.get("/v1/adapters").json()["adapters"]
    assert [a["name"] for a in listed] == ["en-de", "en-fr", "en-hi"]
    found = translate(client, texts=TEXTS, direction=DIRECTIONS)
    assert [a["text"] for a in found] == offline.translate(TEXTS, DIRECTIONS)


def test_an_adapter_that_is_damaged_later_fails_alone(serve, make_translator, offline, own) -> None:
    client: TestClient = serve(make_translator(), adapters=own)
    body = {"folder": "french", "directions": ["en-ta"]}
    assert client.post("/v1/adapters", json=body).status_code == 201
    damage(own / "french", "cut")
    answer = client.post("/v1/translate", json={"texts": ["a"], "direction": "en-ta"})
    assert answer.status_code == 422
    found = translate(client, texts=TEXTS, direction=DIRECTIONS)
    assert [a["text"] for a in found] == offline.translate(TEXTS, DIRECTIONS)
