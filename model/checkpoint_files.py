"""Where a checkpoint is -> a local folder with its files: built in, a folder, an s3:// prefix, or a hub id.

huggingface_hub is imported only when a hub id is asked for. Knows file names, not what is in them.
"""

import hashlib
import os
import re
from pathlib import Path

from model.checkpoint_cache import cached_folder

NANO = "nano"
NANO_FOLDER = Path(__file__).parent / "nano" / "checkpoint"

CONFIG_FILES = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?")
_SAMPLE_BYTES = 64 * 1024
_SAMPLES_PER_FILE = 64


def local_folder(path: str | Path, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint's files, downloaded first if it lies elsewhere.

    Args:
        path: "nano"; a folder; `s3://bucket/prefix` (endpoint and credentials from the usual AWS environment); or a
            hub id `owner/name[@revision]`, fetched with huggingface_hub (which honours HF_ENDPOINT and HF_TOKEN).
        weights: False fetches only the configuration and the tokenizer.

    Downloads are kept under `$LABELMILL_CACHE` (default ~/.cache/labelmill; at most `$LABELMILL_CACHE_GB`), or in
    huggingface_hub's own cache, and are made once however many processes ask. Raises ValueError saying what is wrong
    with the location.
    """
    text = str(path)
    if text == NANO:
        return NANO_FOLDER
    if text.startswith("s3://"):
        return cached_folder(text, lambda name: is_wanted(name, weights=weights))
    folder = Path(os.path.expanduser(text))  # which leaves an unknown ~user alone, where pathlib raises RuntimeError
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"checkpoint {text!r} is a file: give the folder that holds config.json")
    if _HUB_ID.fullmatch(text):
        return _from_hub(text, weights=weights)
    raise ValueError(
        f"checkpoint {text!r} does not exist: give 'nano', a folder, an s3:// prefix or a hub id such as owner/name"
    )


def digest(folder: Path) -> str:
    """sha256 (hex) that names the checkpoint's content wherever it lies.

    Configuration and tokenizer are hashed whole. Of each weight file the size, the header and 64 evenly spaced blocks
    of 64 KiB are (a file of up to 4 MiB whole): training changes every block, and reading 55 GB at the start of every
    run would cost minutes. A part of the weights that lies between the blocks may change unseen, if only it is trained.
    """
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name in CONFIG_FILES:
            sha.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
        elif file.suffix == ".safetensors":
            sha.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                for offset, num_bytes in sampled_ranges(file.stat().st_size):
                    stream.seek(offset)
                    sha.update(stream.read(num_bytes))
    return sha.hexdigest()


def sampled_ranges(size_bytes: int) -> list[tuple[int, int]]:
    """(offset, bytes) of the blocks of a weight file that `digest` reads, in their order; small files' overlap."""
    last = max(0, size_bytes - _SAMPLE_BYTES)
    offsets = sorted({last * index // (_SAMPLES_PER_FILE - 1) for index in range(_SAMPLES_PER_FILE)})
    return [(offset, min(_SAMPLE_BYTES, size_bytes)) for offset in offsets]


def _from_hub(hub_id: str, *, weights: bool) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"checkpoint {hub_id!r} is no folder here, and fetching a hub id needs: pip install huggingface_hub"
        ) from None
    name, _, revision = hub_id.partition("@")
    patterns = [*CONFIG_FILES, "*.safetensors", "*.safetensors.index.json"] if weights else list(CONFIG_FILES)
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=patterns)
    except Exception as error:  # noqa: BLE001 - its HTTP client and its downloader raise classes of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"checkpoint {hub_id!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from None
    return Path(folder)


def is_wanted(name: str, *, weights: bool = True) -> bool:
    """Whether a file of this name belongs to a checkpoint."""
    return name in CONFIG_FILES or (weights and name.endswith((".safetensors", ".safetensors.index.json")))
