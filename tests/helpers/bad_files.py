"""Files and folders that are wrong, each in one way, and right ones to set beside them."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from polylect.models.backbone import tiny_backbone

ROWS = [
    (f"The good boy sees {n} green houses.", f"Der gute Junge sieht nachts {n} grüne Häuser.")
    for n in range(30)
]
TEXTS: dict[str, str | bytes] = {
    "good.tsv": "".join(f"{source}\t{target}\n" for source, target in ROWS),
    "dev.tsv": "".join(f"{source} Yes.\t{target} Ja.\n" for source, target in ROWS[:9]),
    "swapped.tsv": "".join(f"{target}\t{source}\n" for source, target in ROWS),
    "numbered.tsv": "".join(f"{i}\t{s}\t{t}\n" for i, (s, t) in enumerate(ROWS)),
    "one_column.tsv": "".join(f"{source}\n" for source, _ in ROWS),
    "twice.tsv": "en\tde\tde\n" + "".join(f"{s}\t{t}\t{t}\n" for s, t in ROWS),
    "a.en": "".join(f"{source}\n" for source, _ in ROWS),
    "a.de": "".join(f"{target}\n" for _, target in ROWS[:-2]),
    "empty.tsv": "",
    "binary.tsv": bytes(range(256)) * 10,
    "latin1.tsv": "Größe\tsize\n".encode("latin1") * 5,
    "utf16.tsv": "a\tb\n".encode("utf-16"),
    "gzip.tsv": gzip.compress(b"a\tb\n"),
    "cut.tsv.gz": gzip.compress(b"a\tb\n" * 1000)[:30],
    "zip.tsv": b"PK\3\4aaaa",
    "pointer.tsv": "version https://git-lfs.github.com/spec/v1\noid sha256:aa\n",
    "bad.jsonl": '{"en": "a", "de": "b"}\n{"en": \n',
    "list.jsonl": '["a", "b"]\n',
    "number.jsonl": '{"en": 3, "de": 4}\n',
    "fr.csv": "en,fr\nHello,Bonjour\n",
    "nothing.tmx": "<tmx><body><tu></tu></body></tmx>",
    "cut.tmx": "<tmx><body><tu>",
    "in.txt": "The boy sleeps.\n",
    "mixed.tsv": "The boy sleeps.\ten-de\nThe boy sleeps.\ten-ta\n",
    "out.txt": "there\n",
    "notes": "x",
}


def make(folder: Path, run: Path) -> None:
    """Write them all: texts, spoilt copies of a base model and of the adapters of a `run`."""
    for name, content in TEXTS.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    shutil.copytree(run, folder / "RUN")
    shutil.copytree(run, folder / "CUT")
    cut(folder / "CUT" / "checkpoints" / "best.ckpt")
    model, tokenizer = tiny_backbone(hidden=32)
    model.save_pretrained(folder / "BASE")
    tokenizer.save_pretrained(folder / "BASE")
    for name, spoil in BASES.items():
        spoil(Path(shutil.copytree(folder / "BASE", folder / f"BASE_{name}")))
    for name, spoil in ADAPTERS.items():
        library = Path(shutil.copytree(run / "adapters", folder / f"LIB_{name}"))
        spoil(library / "en-de")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values))


def _without_tokenizer(base: Path) -> None:
    for path in base.glob("token*"):
        path.unlink()


BASES: dict[str, Callable[[Path], object]] = {
    "NO_TOKENIZER": _without_tokenizer,
    "NO_WEIGHTS": lambda base: (base / "model.safetensors").unlink(),
    "CUT_WEIGHTS": lambda base: cut(base / "model.safetensors"),
    "NO_CONFIG": lambda base: (base / "config.json").unlink(),
    "CUT_CONFIG": lambda base: cut(base / "config.json"),
    "FOREIGN": lambda base: changed(base / "config.json", model_type="mine"),
    "T5": lambda base: changed(base / "config.json", model_type="t5"),
}
ADAPTERS: dict[str, Callable[[Path], object]] = {
    "GOOD": lambda adapter: None,
    "NO_CONFIG": lambda adapter: (adapter / "adapter_config.json").unlink(),
    "NO_WEIGHTS": lambda adapter: (adapter / "adapter_model.safetensors").unlink(),
    "CUT_WEIGHTS": lambda adapter: cut(adapter / "adapter_model.safetensors"),
    "CUT_CONFIG": lambda adapter: cut(adapter / "adapter_config.json"),
    "DORA": lambda adapter: changed(adapter / "adapter_config.json", use_dora=True),
    "IA3": lambda adapter: changed(adapter / "adapter_config.json", peft_type="IA3"),
}
