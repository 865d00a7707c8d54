"""Where a checkpoint is -> a local folder with its files: built in, a folder, an s3:// prefix, or a hub id.

The only file of the model that may reach a network; boto3 and huggingface_hub are imported only when one of their
locations is asked for. Knows file names, not what is in them.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

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

    Downloads are kept under `$LABELMILL_CACHE` (default ~/.cache/labelmill), or in huggingface_hub's own cache, and
    are safe to run from several processes at once. Raises ValueError saying what is wrong with the location.
    """
    text = str(path)
    if text == NANO:
        return NANO_FOLDER
    if text.startswith("s3://"):
        return _from_s3(text, weights=weights)
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
    of 64 KiB are: training changes every block, and reading 55 GB at the start of every run would cost minutes.
    """
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name in CONFIG_FILES:
            sha.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
        elif file.suffix == ".safetensors":
            sha.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                for offset in _sample_offsets(file.stat().st_size):
                    stream.seek(offset)
                    sha.update(stream.read(_SAMPLE_BYTES))
    return sha.hexdigest()


def _sample_offsets(size_bytes: int) -> list[int]:
    last = max(0, size_bytes - _SAMPLE_BYTES)
    return sorted({last * index // (_SAMPLES_PER_FILE - 1) for index in range(_SAMPLES_PER_FILE)})


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


def _from_s3(uri: str, *, weights: bool) -> Path:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    client, client_errors = _s3_client()
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        found = {item["Key"][len(prefix) :]: item for page in pages for item in page.get("Contents", [])}
        wanted = {name: item for name, item in found.items() if _is_wanted(name, weights=weights)}
        if "config.json" not in wanted:
            raise ValueError(f"checkpoint {uri!r} holds no config.json ({len(found)} objects lie directly under it)")
        names = "".join(f"{name}\0{item['ETag']}\0" for name, item in sorted(wanted.items()))
        folder = _cache_root() / "checkpoints" / hashlib.sha256(f"{uri}\0{names}".encode()).hexdigest()[:32]
        with _locked(folder):
            if not folder.is_dir():
                partial = folder.with_suffix(".partial")
                partial.mkdir(parents=True, exist_ok=True)
                for name, item in wanted.items():
                    if not (partial / name).exists():  # a download that was cut off goes on with the next file
                        client.download_file(bucket, item["Key"], str(partial / f"{name}.part"))
                        (partial / f"{name}.part").rename(partial / name)
                partial.rename(folder)
    except client_errors as error:
        raise ValueError(f"checkpoint {uri!r} could not be fetched: {error}") from None
    return folder


def _is_wanted(name: str, *, weights: bool) -> bool:
    return name in CONFIG_FILES or (weights and name.endswith((".safetensors", ".safetensors.index.json")))


def _s3_client():  # type: ignore[no-untyped-def]  # boto3 builds its clients' types at run time
    try:
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ValueError("reading a checkpoint from s3:// needs: pip install boto3") from None
    # Many compatible stores refuse the trailing checksums that the newer SDKs add unasked.
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 5},
        s3={"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else None,
    )
    return boto3.client("s3", config=config), (BotoCoreError, ClientError, Boto3Error)


def _cache_root() -> Path:
    return Path(os.environ.get("LABELMILL_CACHE") or "~/.cache/labelmill").expanduser()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets one process of the machine download a folder while the others wait; the kernel frees it if that one dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
