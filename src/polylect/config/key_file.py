"""Keys of servers in a file."""

from pathlib import Path

from polylect.config.roots import ConfigError


def read_keys(path: str) -> list[str]:
    """Return the keys in a file, one on each line; lines that begin with # are comments.

    Raises:
        ConfigError: it is no file of text, holds none, or a line with more than a key.
    """
    if not Path(path).is_file():
        raise ConfigError(f"key_file={path} is no file: it has one key on each line.")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"key_file={path} is no text: it has one key on each line.") from None
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key.split()) > 1:  # a name beside a key would open the server, too
            raise ConfigError(
                f"key_file={path}, line {number}, has a space in it: give one key on each line."
            )
        keys.append(key)
    if not keys:
        raise ConfigError(f"key_file={path} holds no key: it has one on each line.")
    return keys
