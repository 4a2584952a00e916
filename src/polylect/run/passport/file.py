"""`passport.json`: hashes, scores and translations of the time when a folder was written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from polylect.files import read_json, write_text
from polylect.run.passport.fields import FIELDS
from polylect.strategies.generation import Generation

PASSPORT = "passport.json"
_LARGEST = 64 * 2**20  # bytes


@dataclass(frozen=True)
class GoldenOutput:
    """A translation as it was when the passport was written, of a sentence of polylect's own.

    Attributes:
        direction: "en-ta".
        source: the sentence.
        prompt: token ids that the model was given.
        prompt_text: the same as text, without special tokens.
        text: the translation, of so many `tokens`; `capped` where it ran into its limit.
    """

    direction: str
    source: str
    prompt: Sequence[int]
    prompt_text: str
    text: str
    tokens: int
    capped: bool


@dataclass(frozen=True)
class Passport:
    """What is known of a folder.

    Attributes:
        kind: "run", "adapter", "model" or "rows".
        made: time, commit, whether the working tree was dirty, device and versions.
        base: name, fingerprint, precision, the first 16 hexadecimal digits of each tensor's
            SHA-256, and the SHA-256 of each file.
        tokenizer: SHA-256 of what it computes with, see `tokenizer_hash`.
        template: name of the prompt template.
        directions: those that are served.
        data: SHA-256 of the sentence pairs, by split and direction.
        scores: value and signature by direction and metric.
        files: SHA-256 and tensors by path below the folder.
        used: the same of files elsewhere, by the names that `used_files` gives them.
        generation: how the golden outputs were decoded, one by one.
        golden: translations.
    """

    kind: str
    made: Mapping[str, Any]
    base: Mapping[str, Any]
    tokenizer: str
    template: str
    directions: Sequence[str]
    data: Mapping[str, Mapping[str, str | None]]
    scores: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]]
    used: Mapping[str, Mapping[str, Any]]
    generation: Mapping[str, Any]
    golden: Sequence[GoldenOutput]

    def write(self, folder: Path) -> None:
        """Write `folder/passport.json`, sealed: a changed character is noticed."""
        write_text(folder / PASSPORT, _text(_sealed(asdict(self))))

    @classmethod
    def read(cls, folder: Path) -> "Passport":
        """Read `folder/passport.json`, from whomever it is.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not sealed as it was written, or a value is not what it should be.
        """
        path = folder / PASSPORT
        if not path.exists():
            raise FileNotFoundError(
                f"{folder} has no {PASSPORT}, which training to the end, `polylect evaluate` and "
                "`polylect export` write: nothing says what this folder should be."
            )
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise ValueError(f"{path} is not read: it is larger than a passport can be.")
        value = read_json(path, "a passport")
        if not isinstance(value, dict) or value.keys() != FIELDS.keys():
            raise ValueError(f"{path} is no passport: its fields must be {', '.join(FIELDS)}.")
        for name, (words, fits) in FIELDS.items():
            if not fits(value[name]):
                raise ValueError(f"{path}: {name} must be {words}, it is something else.")
        if path.read_text(encoding="utf-8") != _text(_sealed(value)):
            raise ValueError(f"{path} was changed since it was written: its seal does not fit.")
        del value["seal"]
        golden = [GoldenOutput(**output) for output in value.pop("golden")]
        return cls(golden=golden, **value)

    def of_directions(self, directions: Sequence[str]) -> "Passport":
        """Return the passport with the golden outputs of some directions alone."""
        return replace(self, golden=[o for o in self.golden if o.direction in directions])

    @property
    def decoding(self) -> Generation:
        """The settings with which the golden outputs were decoded."""
        return Generation(**self.generation)


def _sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the hash of all others; raises nothing, whatever the seal was before."""
    rest = {name: value[name] for name in FIELDS if name != "seal"}
    content = json.dumps(rest, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
    return rest | {"seal": hashlib.sha256(content).hexdigest()}


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
