"""An export on the Hugging Face hub: what would be uploaded, and the upload."""

from pathlib import Path

from polylect.config.roots import ConfigError

CARD_FORMS = ("adapters", "merged", "model")
"""Forms of an export that have a model card."""


def check_name(name: str) -> None:
    """Raises ConfigError for what is no OWNER/NAME of the hub; asks nobody."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"hub={name} is no name on the hub: {error}") from error
    if name.count("/") != 1:
        raise ConfigError(f"hub={name}: give OWNER/NAME, as in hub=me/{name}.")


def listing(folder: Path, name: str) -> list[str]:
    """Return sentences on what an upload of the folder would be."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder): path.stat().st_size for path in files}
    return [
        f"hub: {len(files)} files, {sum(sizes.values()) / 2**20:.1f} MiB, would go to {name}:",
        *(f"  {path}  {size:,} bytes" for path, size in sizes.items()),
    ]


def upload(folder: Path, name: str) -> str:
    """Upload a folder, to a private repository where there is none yet; returns its address.

    Raises ConfigError where the hub does not take it; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # whatever the network or the hub has to say
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{folder} is whole, and hub={name} did not take it ({reason}): log in with hf auth "
            f"login, then hf upload {name} {folder}"
        ) from error
    return str(address)
