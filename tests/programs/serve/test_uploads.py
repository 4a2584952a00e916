"""Adapters that clients upload: which are taken, and that nothing is left of others."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
from helpers.serving import TEXTS, translate
from starlette.testclient import TestClient

from polylect.library.folder import ABOUT, CONFIG, WEIGHTS
from polylect.programs.serve.api import adapters as adapters_api
from polylect.programs.serve.limits import Limits

FILES = (CONFIG, WEIGHTS, ABOUT)


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def files(library: Path) -> dict[str, bytes]:
    """Those of the adapter en-fr, which is to serve another direction."""
    found = {name: (library / "en-fr" / name).read_bytes() for name in FILES}
    return found | {ABOUT: b'{"directions": ["en-ta"]}'}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def client(serve, store: Path) -> TestClient:
    return serve(None, Limits(max_upload=2**20), adapters=store)


def upload(client: TestClient, content: bytes, name: str = "mine"):
    headers = {"Content-Type": "application/octet-stream"}
    return client.put(f"/v1/adapters/{name}", content=content, headers=headers)


def test_an_upload_is_stored_and_used(client, store, files, offline) -> None:
    answer = upload(client, packed(files))
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"name": "mine", "directions": ["en-ta"], "resident": True}
    (found,) = translate(client, texts=TEXTS[:1], direction="en-ta")
    assert found["adapter"] == "mine"
    assert found["text"] == offline.translate(TEXTS[:1], "en-ta", "en-fr")[0]
    assert {f.name: f.read_bytes() for f in (store / "mine").iterdir()} == files
    assert upload(client, packed(files)).status_code == 409
    assert client.delete("/v1/adapters/mine").status_code == 204
    assert upload(client, packed(files)).status_code == 409, "its files are there still"
    assert client.post("/v1/adapters", json={"folder": "mine"}).status_code == 201


def bad(files: dict[str, bytes], how: str) -> bytes:
    if how == "no zip":
        return b"PK nothing"
    if how == "cut":
        return packed(files)[:-300]
    if how == "damaged":
        content = bytearray(packed(files))
        content[len(content) // 2] ^= 255
        return bytes(content)
    changed = {
        "pickle": files | {"adapter_model.bin": b"\x80\x04."},
        "code": files | {"modeling.py": b"import os"},
        "climbs": files | {f"../{CONFIG}": b"{}"},
        "absolute": files | {"/etc/adapter": b"{}"},
        "no weights": {CONFIG: files[CONFIG]},
        "bad weights": files | {WEIGHTS: b"\xff" * 100},
        "other kind": files | {CONFIG: files[CONFIG].replace(b"LORA", b"IA3")},
        "bad about": files | {ABOUT: b"["},
    }
    return packed(changed[how])


@pytest.mark.parametrize(
    "how",
    [
        "no zip", "cut", "damaged", "pickle", "code", "climbs", "absolute", "no weights",
        "bad weights", "other kind", "bad about",
    ],
)  # fmt: skip
def test_a_bad_upload_is_refused_and_leaves_nothing(client, store, files, how: str) -> None:
    answer = upload(client, bad(files, how))
    assert answer.status_code == 422, answer.text
    assert str(store.parent) not in answer.text
    assert list(store.iterdir()) == []
    assert [a["name"] for a in client.get("/v1/adapters").json()["adapters"]] == [
        "en-de", "en-fr", "en-hi"
    ]  # fmt: skip
    assert upload(client, packed(files)).status_code == 201


def test_what_is_too_large_packed_or_unpacked_is_refused(serve, store, files) -> None:
    client = serve(None, Limits(max_bytes=100, max_upload=60_000), adapters=store)
    assert upload(client, b"x" * 60_001).status_code == 413
    bomb = packed(files | {WEIGHTS: b"\0" * 10**7})
    assert len(bomb) < 60_000
    assert upload(client, bomb).status_code == 413
    assert client.post("/v1/translate", content=b"x" * 101).status_code == 413
    assert list(store.iterdir()) == []


def test_a_name_that_is_a_path_is_refused(client, files) -> None:
    for name in ("..%2Felse", "a%2Fb", "a.b", "x" * 101, "%00"):
        assert upload(client, packed(files), name).status_code in (404, 422)


def test_nothing_is_taken_unless_it_is_allowed(serve, store, files) -> None:
    answer = upload(serve(None, adapters=store), packed(files))
    assert answer.status_code == 403 and "max_upload=BYTES" in answer.json()["error"]["message"]
    answer = upload(serve(None, Limits(max_upload=2**20)), packed(files))
    assert answer.status_code == 403 and "adapters=FOLDER" in answer.json()["error"]["message"]


def test_a_full_disk_is_told_and_leaves_nothing(
    client, store, files, offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(adapters_api.Path, "write_bytes", full)
        answer = upload(client, packed(files))
    assert answer.status_code == 507 and "disk may be full" in answer.json()["error"]["message"]
    assert list(store.iterdir()) == []
    (found,) = translate(client, texts=TEXTS[:1], direction="en-de")
    assert found["text"] == offline.translate(TEXTS[:1], "en-de")[0]
    assert upload(client, packed(files)).status_code == 201


def test_an_upload_takes_no_direction_from_others(client, store, files) -> None:
    before = client.get("/v1/directions").json()
    odd = files | {ABOUT: b'{"directions": ["xx-yy"]}'}
    answer = upload(client, packed(odd))
    assert answer.status_code == 422 and "unknown language code" in answer.text
    assert client.get("/v1/directions").json() == before and list(store.iterdir()) == []
    assert upload(client, packed(files)).status_code == 201
    answer = upload(client, packed(files), "other")
    assert answer.status_code == 409 and "mine serves en-ta already" in answer.text
    assert [folder.name for folder in store.iterdir()] == ["mine"]
    assert "other" not in [a["name"] for a in client.get("/v1/adapters").json()["adapters"]]
    unnamed = files | {ABOUT: b'{"directions": []}'}
    assert upload(client, packed(unnamed), "other").status_code == 201
    for name in ("mine", "other"):
        (found,) = translate(client, texts=TEXTS[:1], direction="en-ta", adapter=name)
        assert found["adapter"] == name


@pytest.mark.parametrize("name", ["my-adapter", "alpaca"])
def test_an_adapter_named_otherwise_is_no_direction(
    serve, make_translator, library: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(library, tmp_path / "library")
    shutil.copytree(library / "en-fr", tmp_path / "library" / name)
    (tmp_path / "library" / name / ABOUT).unlink()
    client = serve(make_translator(tmp_path / "library"))
    assert client.get("/v1/directions").json()["directions"] == ["en-de", "en-fr", "en-hi"]
    (found,) = translate(client, texts=["We read the books in the house."], target="de")
    assert found["direction"] == "en-de"
    assert client.get(f"/v1/models/{name}").status_code == 200
