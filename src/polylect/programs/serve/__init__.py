"""`polylect serve`: a run or a library of adapters behind HTTP, for programs and on a page."""

import ipaddress
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.base_or_run import choose_strategy
from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.files import read_keys
from polylect.programs.serve.limits import Limits

NO_BASE = dict.fromkeys(("model", "library", "strategy", "template"))
"""The settings that say what is served where no run is."""


def main(cfg: DictConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; what runs then is finished."""
    choose_strategy(cfg)
    validate(cfg)
    limits = _limits(cfg)
    keys = [] if cfg.key_file is None else read_keys(cfg.key_file)
    adapters = _adapters_folder(cfg)
    is_loopback = _is_loopback(cfg.host)
    if not (is_loopback or keys or cfg.open):
        raise ConfigError(
            f"host={cfg.host} lets other machines in: give key_file=FILE with a key that they must "
            "send, or open=true."
        )
    uvicorn = _uvicorn()
    with _bound(cfg.host, cfg.port) as listening:
        from polylect.programs.serve.app import LOOPBACK, create_app
        from polylect.run.build import build_memory
        from polylect.run.session import signal_handlers
        from polylect.run.terminal import quiet
        from polylect.run.using import translator_of

        print(f"polylect serve: {cfg.run or 'base model'}, loading …", file=sys.stderr, flush=True)
        quiet()
        _log_to_stderr()
        translator = translator_of(cfg)
        translator.remember(build_memory(cfg, translator.module))
        common: dict[str, Any] = {
            "keys": keys,
            "hosts": LOOPBACK if is_loopback else ("*",),
            "logs_texts": cfg.log_texts,
        }
        beside = None
        if cfg.beside is not None:
            other = translator_of(
                OmegaConf.merge(cfg, ({} if cfg.run else NO_BASE) | {"run": cfg.beside})
            )
            beside = create_app(other, limits, name=_name(cfg.beside), **common)
        app = create_app(
            translator,
            limits,
            adapters=adapters,
            name=_name(cfg.run or "base model"),
            beside=beside,
            **common,
        )
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=cfg.stop_seconds,
        )
        server = uvicorn.Server(settings)
        listening.listen(settings.backlog)  # who reads the address may call it at once
        print(f"polylect serve: {_address(listening)}", file=sys.stderr, flush=True)
        # uvicorn stops gracefully at the first signal, and raises it again when it has stopped.
        handlers = {signal.SIGTERM: lambda *_: None, signal.SIGINT: lambda *_: None}
        with signal_handlers(handlers):
            server.run(sockets=[listening])
        print("polylect serve: stopped", file=sys.stderr, flush=True)


def _name(run: str) -> str:
    return "/".join(Path(run).parts[-2:])


def _limits(cfg: DictConfig) -> Limits:
    if cfg.stop_seconds < 1:
        raise ConfigError(f"stop_seconds must be at least 1, got {cfg.stop_seconds}.")
    try:
        names = ("max_bytes", "max_upload", "max_texts", "queue", "timeout", "wait_ms")
        return Limits(**{name: cfg[name] for name in names})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _uvicorn() -> Any:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"polylect serve needs {error.name}, which is not installed: "
            "pip install 'polylect[serve]'."
        ) from None
    return uvicorn


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens there, before minutes are spent on loading."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port={port} is no port: give one from 1 to 65535, or 0 for a free one.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigError(
            f"host={host} port={port} cannot be listened on: {error.strerror}; port=0 takes a free "
            "one."
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _adapters_folder(cfg: DictConfig) -> Path | None:
    """Where adapters may be loaded from: given, or the library or the run's own."""
    if cfg.adapters is not None:
        if not Path(cfg.adapters).is_dir():
            raise ConfigError(f"adapters={cfg.adapters} is no folder.")
        return Path(cfg.adapters)
    library = cfg.library if isinstance(cfg.library, str) else None
    own = Path(cfg.run or "") / "adapters" if cfg.run else library
    return Path(own) if own and Path(own).is_dir() else None


def _log_to_stderr() -> None:
    """Tell what goes wrong within the server, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("polylect.programs.serve")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
