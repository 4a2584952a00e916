"""Adapters that come and go while the server runs."""

import asyncio
import io
import logging
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from polylect.data.languages import split_direction
from polylect.files import Unwritable, whole_folder
from polylect.library.folder import ABOUT, CONFIG, WEIGHTS, read_about
from polylect.programs.serve.api.schemas import (
    NAME_PATTERN,
    AdapterAnswer,
    AdapterAnswers,
    AdapterRequest,
    refusals,
)
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.limits import Refusal
from polylect.run.text_settings import has_named_adapters

_log = logging.getLogger(__name__)
_UPLOADED = {CONFIG, WEIGHTS, ABOUT}
"""Files of an upload; none else is taken, pickled weights least of all."""
_NEW_NAME = Annotated[str, PathParameter(pattern=NAME_PATTERN)]
_ZIP = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def adapter_routes(engine: Engine, folder: Path | None) -> APIRouter:
    """Return the routes that list, load, take and unload adapters.

    Args:
        folder: from which adapters may be loaded; None allows none.
    """
    router = APIRouter(tags=["polylect"])

    @router.get("/v1/adapters", responses=refusals())
    async def adapters() -> AdapterAnswers:
        """List the adapters that can be used."""
        return await called(engine, lambda: _adapters(engine))

    @router.post("/v1/adapters", status_code=201, responses=refusals(403, 409))
    async def load_adapter(body: AdapterRequest) -> AdapterAnswer:
        """Load an adapter from the server's folder of adapters, between two batches.

        A direction that another adapter serves already stays with that one: this one is then used
        where it is named. Files that are replaced later are read again by themselves.
        """
        return await called(engine, lambda: _load(engine, folder, body))

    @router.put(
        "/v1/adapters/{name}",
        status_code=201,
        responses=refusals(403, 409, 507),
        openapi_extra={"requestBody": {"content": _ZIP, "required": True}},
    )
    async def upload_adapter(name: _NEW_NAME, request: Request) -> AdapterAnswer:
        """Take a new adapter, a zip archive of its files, into the server's folder, and load it.

        The files are `adapter_config.json`, `adapter_model.safetensors` and, if there is one,
        `polylect.json`. What cannot be loaded is not kept.
        """
        content = await request.body()
        return await called(engine, lambda: _upload(engine, folder, name, content))

    @router.delete("/v1/adapters/{name}", status_code=204, responses=refusals(404))
    async def unload_adapter(name: str) -> Response:
        """Take an adapter off the list, between two batches; its files stay."""
        await called(engine, lambda: _unload(engine, name))
        return Response(status_code=204)

    return router


async def called(engine: Engine, function: Any) -> Any:
    """Return what a function returns that the engine's thread calls between two batches."""
    return await asyncio.wrap_future(engine.call(function))


# What follows runs in the engine's thread.


def _adapters(engine: Engine) -> AdapterAnswers:
    if not has_named_adapters(engine.translator.module):
        return AdapterAnswers(adapters=[])
    return AdapterAnswers(adapters=[_adapter(engine, n) for n in engine.translator.adapters])


def _adapter(engine: Engine, name: str) -> AdapterAnswer:
    library = engine.translator.module.named_adapters()
    directions = list(library.adapter_index.directions_of(name))
    resident = name in library.store.resident
    return AdapterAnswer(name=name, directions=directions, resident=resident)


def _load(engine: Engine, root: Path | None, body: AdapterRequest) -> AdapterAnswer:
    folder = inside(root, body.folder)
    name = body.name or folder.name
    _check_is_new(engine, name)
    try:
        for direction in body.directions or read_about(folder).get("directions", ()):
            split_direction(direction)
        engine.translator.load_adapter(folder, name, body.directions)
    except (ValueError, FileNotFoundError) as error:
        # What is above the folder of adapters is nobody's business.
        raise Refusal(422, str(error).replace(f"{folder.parent}/", "")) from error
    return _adapter(engine, name)


def _check_is_new(engine: Engine, name: str) -> None:
    if has_named_adapters(engine.translator.module) and name in engine.translator.adapters:
        raise Refusal(409, f"an adapter named {name} is there already: give another name.")


def _upload(engine: Engine, root: Path | None, name: str, content: bytes) -> AdapterAnswer:
    if not engine.limits.max_upload:
        raise Refusal(
            403, "this server takes no adapters: it was started without max_upload=BYTES."
        )
    folder = inside(root, name)
    _check_is_new(engine, name)
    if folder.exists():
        raise Refusal(409, f"there are files of an adapter named {name}: give another name.")
    files = _unpacked(content, engine.limits.max_upload)
    try:
        with whole_folder(folder) as partial:
            for file, data in files.items():
                (partial / file).write_bytes(data)
    except (OSError, Unwritable) as error:
        _log.error("an adapter could not be stored", exc_info=error)
        raise Refusal(507, "the adapter cannot be stored: the disk may be full.") from error
    try:
        answer = _load(engine, root, AdapterRequest(folder=name, name=name))
        _check_lasting(engine, answer, folder)
        return answer
    except BaseException:
        if name in engine.translator.adapters:
            engine.translator.unload_adapter(name)
        shutil.rmtree(folder)
        raise


def _check_lasting(engine: Engine, new: AdapterAnswer, folder: Path) -> None:
    """Raises Refusal where the server could not tell two adapters apart when it is started again.

    Now the first one has a direction that both serve; those of one folder come together then.
    """
    index = engine.translator.module.named_adapters().adapter_index
    for name in index.names:
        is_beside = index.folder(name).parent.resolve() == folder.parent.resolve()
        common = sorted({*new.directions} & {*index.directions_of(name)})
        if name != new.name and is_beside and common:
            raise Refusal(
                409,
                f"{name} serves {common[0]} already: leave it out of the directions in {ABOUT}; a "
                "request may name the adapter with any direction.",
            )


def _unpacked(content: bytes, most: int) -> dict[str, bytes]:
    """The files of an archive, by name.

    Raises:
        Refusal: it is no zip archive, has other files, lacks one, or is too large unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if unknown := sorted(set(names) - _UPLOADED):
                known = ", ".join(sorted(_UPLOADED))
                raise Refusal(
                    422,
                    f"the archive has {unknown[0]!r}, and may have only {known}: pack these alone, "
                    "without a folder around them.",
                )
            if missing := sorted({CONFIG, WEIGHTS} - set(names)):
                raise Refusal(422, f"the archive has no {missing[0]}.")
            if len(names) > len(set(names)):
                raise Refusal(422, "the archive has a file twice.")
            if sum(member.file_size for member in members) > most:
                raise Refusal(413, f"the files have more than {most} bytes.")
            return {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise Refusal(422, f"the body is no zip archive that can be read: {error}.") from error


def _unload(engine: Engine, name: str) -> None:
    library = has_named_adapters(engine.translator.module)
    if not library or name not in engine.translator.adapters:
        raise Refusal(404, f"no adapter is named {name}.")
    engine.translator.unload_adapter(name)


def inside(root: Path | None, folder: str) -> Path:
    """Return a folder within the folder of adapters, links followed.

    Raises:
        Refusal: it lies elsewhere, or no folder of adapters is set (403).
    """
    if root is None:
        raise Refusal(403, "this server loads no adapters: it was started without adapters=FOLDER.")
    try:
        found = (root / folder).resolve()
    except (ValueError, OSError):  # NUL, a loop of links, a name too long
        found = root
    if root.resolve() not in found.parents:
        raise Refusal(403, "folder must lie within the server's folder of adapters.")
    return found
