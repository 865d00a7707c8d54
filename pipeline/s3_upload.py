"""An open file -> one object of S3: in a single request, or in parts where it is large, few of which are held.

It knows no patience: each request is handed to whoever asks it again.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from pipeline.s3_client import code_of, writer
from pipeline.storage import StorageError, Store, split_s3

PART_BYTES = 32 * 1024 * 1024
MAX_PARTS = 10_000
"""Of one object, to S3; larger files have larger parts."""

Ask = Callable[[str, str, Callable[[], Any]], Any]
"""(what is asked, URI, request) -> its answer."""


def put_file(store: Store, uri: str, file: BinaryIO, ask: Ask) -> None:
    """An upload that fails is ended, so that nobody pays for its parts.

    Raises:
        StorageError: as `Store.put`.
    """
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    if num_bytes <= PART_BYTES:
        store.put(uri, file.read())
        return
    bucket, key = split_s3(uri)
    begun = ask("begin upload", uri, lambda: writer().create_multipart_upload(Bucket=bucket, Key=key))
    upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    try:
        parts = _put_parts(uri, file, max(PART_BYTES, -(-num_bytes // MAX_PARTS)), upload, ask)
        ask("complete upload", uri, lambda: _complete(store, uri, num_bytes, parts, upload))
    except BaseException:
        with contextlib.suppress(StorageError):
            ask("end upload", uri, lambda: writer().abort_multipart_upload(**upload))
        raise


def _put_parts(uri: str, file: BinaryIO, part_bytes: int, upload: dict[str, str], ask: Ask) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    while data := file.read(part_bytes):
        number = len(parts) + 1

        def request(number: int = number, data: bytes = data) -> Any:
            return writer().upload_part(**upload, PartNumber=number, Body=data)

        parts.append({"PartNumber": number, "ETag": ask(f"put part {number}", uri, request)["ETag"]})
    return parts


def _complete(store: Store, uri: str, num_bytes: int, parts: list[dict[str, Any]], upload: dict[str, str]) -> None:
    try:
        writer().complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except ClientError as error:
        # The answer to an earlier attempt was lost: then the object is there, and the upload is not any more.
        if code_of(error) != "NoSuchUpload" or store.head(uri).num_bytes != num_bytes:
            raise
