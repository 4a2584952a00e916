"""A server within this process, on a tiny base with adapters that say something else each."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.serving import DIRECTIONS
from helpers.small import write_adapters
from starlette.testclient import TestClient

from polylect.files import write_text
from polylect.models.backbone import tiny_backbone
from polylect.programs.serve.app import create_app
from polylect.strategies.generation import Generation
from polylect.translator import Translator

CONFIG = """
model: {_target_: polylect.models.backbone.tiny_backbone}
data: {directions: [en-de, en-fr, en-hi], template: tag}
generation: {_target_: polylect.strategies.generation.Generation, limit: 8}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters far from zero; only for reading."""
    return write_adapters(tmp_path_factory.mktemp("served"), DIRECTIONS)


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Path:
    """The folder of a run with these adapters."""
    shutil.copytree(library, tmp_path / "run" / "adapters")
    write_text(tmp_path / "run" / "config.yaml", CONFIG)
    return tmp_path / "run"


Make = Callable[..., Translator]


@pytest.fixture(scope="session")
def make_translator(library: Path) -> Make:
    def make(folder: Path | None = library, limit: int = 8, **settings) -> Translator:
        return Translator.from_base(
            *tiny_backbone(),
            library=folder,
            template="tag",
            generation=Generation(limit=limit, **settings),
            device="cpu",
        )

    return make


@pytest.fixture(scope="session")
def offline(make_translator: Make) -> Translator:
    """The oracle: what it says, the server must say."""
    return make_translator()


@pytest.fixture
def serve(make_translator: Make) -> Iterator[Callable[..., TestClient]]:
    """Start servers, which end with the test."""
    with ExitStack() as stack:

        def start(translator: Translator | None = None, *args, **settings) -> TestClient:
            app = create_app(translator or make_translator(), *args, **settings)
            return stack.enter_context(TestClient(app, base_url="http://localhost"))

        yield start


@pytest.fixture(scope="module")
def client(make_translator: Make, library: Path) -> Iterator[TestClient]:
    """One server for the tests of a file that leave it as it was."""
    app = create_app(make_translator(), adapters=library)
    with TestClient(app, base_url="http://localhost") as client:
        yield client
