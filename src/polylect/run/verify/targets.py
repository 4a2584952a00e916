"""What `polylect verify` is given, told apart, and the checks of each kind in their order."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.files import read_keys
from polylect.layers.lora.layer import nearest_name
from polylect.library.peft_format import CONFIG
from polylect.run.build import checkpoint_path
from polylect.run.passport.file import PASSPORT, Passport
from polylect.run.passport.used_files import used_files
from polylect.run.record import Record
from polylect.run.verify.aligned import check_aligned
from polylect.run.verify.base import (
    check_base,
    check_switching,
    check_tokenizer,
    golden_rows,
)
from polylect.run.verify.check import Check, has_failed, not_checked
from polylect.run.verify.endpoint import Endpoint, check_endpoint
from polylect.run.verify.files import check_base_files, check_files, check_used
from polylect.run.verify.frozen import check_frozen
from polylect.run.verify.isolation import check_others, check_untrained
from polylect.run.verify.loaders import (
    base_settings,
    load_base,
    load_library,
    load_model,
    load_run,
    path_of_base,
    settings_of_run,
)
from polylect.run.verify.outputs import check_outputs
from polylect.run.verify.parts import check_parts, check_row_outputs
from polylect.strategies.checkpoint import read_checkpoint
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import device_of

_PASSPORT = "the passport is as written"
_REST = not_checked("everything else", "nothing that has changed is loaded")


def is_address(target: str) -> bool:
    """Return whether the target is a server and no folder."""
    return "://" in target


def verify(cfg: DictConfig) -> list[Check]:
    """Return the checks of `cfg.target`.

    Raises:
        ConfigError: it is nothing that can be verified, or settings do not go together.
        RuntimeError: a server does not answer.
    """
    if is_address(cfg.target):
        return _verify_address(cfg)
    folder = Path(cfg.target)
    if not folder.is_dir():
        raise ConfigError(
            f"target={folder} is no folder: give a run, an adapter, an exported model, a folder of "
            "one of these, or the address of a server."
        )
    if any((folder / name).exists() for name in (PASSPORT, "record.json", CONFIG, "config.json")):
        return _with_passport(folder, cfg)
    if any(folder.glob(f"*/{CONFIG}")):
        return _verify_library(folder, cfg)
    parts = sorted(path.parent for path in folder.glob(f"*/{PASSPORT}"))
    checks = [(part, _with_passport(part, cfg)) for part in parts]
    return [check.of(part.name) for part, own in checks for check in own] or _with_passport(
        folder, cfg
    )


_Verify = Callable[[Path, Passport, DictConfig], Iterator[Check]]


def _with_passport(folder: Path, cfg: DictConfig, rest: _Verify | None = None) -> list[Check]:
    """The checks of a folder: first its passport and files, then what is loaded from them.

    What that is depends on the kind of the passport, unless `rest` is given.
    """
    try:
        passport = Passport.read(folder)
    except (FileNotFoundError, ValueError) as error:
        return [Check(_PASSPORT, "its fields and seal", (str(error),)), _REST]
    checks = [Check(_PASSPORT, "its fields and seal"), check_files(passport, folder)]
    if has_failed(checks):
        return [*checks, _REST]
    rest = rest or _BY_KIND[passport.kind]
    return [*checks, *_until_failure(rest(folder, passport, cfg))]


def _until_failure(checks: Iterator[Check]) -> list[Check]:
    """All checks; where something cannot be loaded, that is the last one, with its reason."""
    done: list[Check] = []
    try:
        done.extend(checks)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        done.append(Check("it can be loaded and used", "what is left", (str(error),)))
    return done


def _verify_rows(folder: Path, passport: Passport, cfg: DictConfig) -> Iterator[Check]:
    if "_target_" not in (cfg.model or {}):
        yield not_checked("golden outputs", "give model=…, the base that the rows belong on")
        return
    settings = DictConfig({"model": cfg.model, "packages": list(cfg.packages)})
    base_check = check_base_files(passport, path_of_base(settings.model))
    yield base_check
    if base_check.faults:
        yield _REST
        return
    for file in sorted(folder.glob("*.safetensors")):
        yield check_row_outputs(file, passport, *load_base(settings), device_of(cfg.device))


def _verify_run(folder: Path, passport: Passport, cfg: DictConfig) -> Iterator[Check]:
    settings = settings_of_run(folder, cfg)
    base_check = check_base_files(passport, path_of_base(settings.model))
    yield base_check
    if base_check.faults:
        yield _REST
        return
    if not (folder / "checkpoints").is_dir():
        used_check = check_used(passport, used_files(settings))
        yield used_check
        if used_check.faults:
            yield _REST
            return
    module = load_run(folder, settings, cfg).to(device_of(cfg.device))
    of_base = module.about["config"]["model"]
    made = DictConfig({"model": of_base, "packages": list(cfg.packages)})

    def base() -> Any:
        return load_base(made)[0].to(module.device)

    began_with = Record.read(folder).config.get("init_from")
    stage = Path(began_with) if began_with else None
    yield from _check_module(module, passport, base, cfg, stage)
    yield check_others(module, golden_rows(passport, module))
    how = "the checkpoint" if (folder / "checkpoints").is_dir() else "the strategy"
    yield check_outputs(module, passport, how, settings.get("adapter"))
    yield from check_aligned(module)
    yield from check_parts(module, passport, folder, cfg, base)


def _check_module(
    module: Any,
    passport: Passport,
    base: Callable[[], Any],
    cfg: DictConfig,
    stage: Path | None,
) -> Iterator[Check]:
    """The checks of a loaded strategy on its base; `stage` is the run that its own began with."""
    rows = golden_rows(passport, module)
    yield check_base(module, passport)
    yield check_tokenizer(module, passport)
    yield check_switching(module, rows, cfg.turns, cfg.seed)
    before = None
    if stage is not None and stage.exists():
        before = read_checkpoint(checkpoint_path(stage))["state_dict"]
    untouched = base()
    yield check_frozen(module, untouched, before, stage is not None)
    yield check_untrained(module, untouched, rows)


def _verify_adapter(folder: Path, passport: Passport, cfg: DictConfig) -> Iterator[Check]:
    settings = base_settings(folder, cfg)
    base_check = check_base_files(passport, path_of_base(settings.model))
    yield base_check
    if base_check.faults:
        yield _REST
        return
    name = nearest_name(folder.name)
    yield from _check_on_base({name: folder}, {name: passport}, cfg, settings)


def _verify_library(folder: Path, cfg: DictConfig) -> list[Check]:
    """The checks of each adapter's files, then of all of them on their base."""
    folders = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}
    checks: list[Check] = []
    passports: dict[str, Passport] = {}

    def keep(part: Path, passport: Passport, _: DictConfig) -> Iterator[Check]:
        passports[part.name] = passport
        yield from ()

    for name, part in folders.items():
        checks += [check.of(name) for check in _with_passport(part, cfg, keep)]
    if has_failed(checks):
        return checks
    first = next(iter(folders))
    settings = base_settings(folders[first], cfg)
    base_check = check_base_files(passports[first], path_of_base(settings.model))
    if base_check.faults:
        return [*checks, base_check, _REST]
    rest = _check_on_base(folders, passports, cfg, settings)
    return [*checks, base_check, *_until_failure(rest)]


def _check_on_base(
    folders: Mapping[str, Path],
    passports: Mapping[str, Passport],
    cfg: DictConfig,
    settings: DictConfig,
) -> Iterator[Check]:
    """The checks of adapters on their base, by their names."""
    first, *others = passports
    template = passports[first].template
    module = load_library(settings, template, cfg, folders).to(device_of(cfg.device))

    def base() -> Any:
        return load_base(settings)[0].to(module.device)

    yield from _check_module(module, passports[first], base, cfg, None)
    for name in others:
        yield check_base(module, passports[name]).of(name)
        yield check_tokenizer(module, passports[name]).of(name)
    yield from check_aligned(module)
    if not isinstance(module, LoRALibrary):
        yield not_checked("golden outputs", "a router chooses adapters: it has none of their own")
        return
    rows = []
    for name, passport in passports.items():
        module.load(name)
        yield check_outputs(module, passport, f"adapter {name}", name)
        rows += golden_rows(passport, module)
    yield check_others(module, rows)


def _verify_model(folder: Path, passport: Passport, cfg: DictConfig) -> Iterator[Check]:
    module = load_model(folder, passport).to(device_of(cfg.device))
    yield check_tokenizer(module, passport, has_files=True)
    yield check_switching(module, golden_rows(passport, module), cfg.turns, cfg.seed)
    yield check_outputs(module, passport, "the model")


_BY_KIND: dict[str, _Verify] = {
    "run": _verify_run,
    "adapter": _verify_adapter,
    "model": _verify_model,
    "rows": _verify_rows,
}


def _verify_address(cfg: DictConfig) -> list[Check]:
    if cfg.passport is None:
        raise ConfigError(
            f"target={cfg.target} is a server: give passport=FOLDER, whose golden outputs it is to "
            "reproduce."
        )
    folder = Path(cfg.passport)
    key = read_keys(cfg.key_file)[0] if cfg.key_file else None
    endpoint = Endpoint(cfg.target, cfg.prompts, key)
    try:
        passport = Passport.read(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"passport={folder}: {error}") from error
    adapter = folder.name if passport.kind == "adapter" else None
    return check_endpoint(endpoint, passport, cfg.name, adapter)
