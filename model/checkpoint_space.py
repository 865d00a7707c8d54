"""Bytes that a download needs -> the disk has them, and the cache stays below its limit; or an error that says how many
are missing.

What no process uses goes, what was used longest ago first. Nothing goes where that would not be enough.
"""

import logging
import math
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint_locks import alone_with, last_used_s

LIMIT_VARIABLE = "LABELMILL_CACHE_GB"
"""Of all checkpoints in the cache together; unset or empty: as much as the disk has."""

_VERSION = re.compile(r"-[0-9a-f]{32}$")
"""At the end of the name of a checkpoint's folder."""
_BLOCK_BYTES = 512
_EVICTED = ".evicted-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    folder: Path
    num_bytes: int


def make_room(root: Path, num_bytes: int, *, purpose: Path) -> None:
    """Removes folders of the cache until `num_bytes` more fit.

    Call it alone: of two callers each would count the same free bytes.

    Args:
        root: of the cache; each of its folders whose name ends in a version is one checkpoint.
        purpose: the folder that the bytes are for, which stays.

    Raises ValueError, having removed nothing, if they cannot fit.
    """
    limit_bytes = _limit_bytes()
    if num_bytes == 0:
        return
    for abandoned in root.glob(f"{_EVICTED}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    kept = [_Kept(folder=folder, num_bytes=_allocated_bytes(folder)) for folder in root.iterdir() if _is_ours(folder)]
    over_limit = num_bytes + sum(each.num_bytes for each in kept) - limit_bytes
    over_disk = num_bytes - free_bytes(root)
    missing = max(over_limit, over_disk)
    if missing <= 0:
        return
    others = sorted((each for each in kept if each.folder != purpose), key=lambda each: last_used_s(each.folder))
    unused = [each for each in others if _is_unused(each.folder)]
    short = missing - sum(each.num_bytes for each in unused)
    if short > 0:
        bound = f"{LIMIT_VARIABLE} allows {_gb(limit_bytes)}" if over_limit >= over_disk else "its disk is full"
        in_use = sum(each.num_bytes for each in others) - sum(each.num_bytes for each in unused)
        raise ValueError(
            f"{root} has no room for {_gb(num_bytes)} more: {_gb(short)} are missing ({bound}; {_gb(in_use)} of other "
            f"checkpoints are in use, {_gb(missing - short)} that are not would have been removed)"
        )
    for each in unused:
        if missing <= 0:
            break
        if _evict(each.folder):
            _log.info("removed %s from the cache, which no process used (%s)", each.folder, _gb(each.num_bytes))
            missing -= each.num_bytes
    if missing > 0:  # a process began to use one meanwhile
        make_room(root, num_bytes, purpose=purpose)


def free_bytes(folder: Path) -> int:
    """That this user may still write there."""
    return shutil.disk_usage(folder).free


def _limit_bytes() -> float:
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        limit_gb = float(text) if text else math.inf
    except ValueError:
        limit_gb = math.nan
    if not limit_gb > 0:
        raise ValueError(f"{LIMIT_VARIABLE} is {text!r}; set it to a number of GB (1e9 bytes)")
    return limit_gb * 1e9


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"


def _allocated_bytes(folder: Path) -> int:
    """Of its files on the disk; a process may be adding and removing some meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue
    return total


def _is_ours(folder: Path) -> bool:
    return _VERSION.search(folder.name) is not None and folder.is_dir()


def _is_unused(folder: Path) -> bool:
    with alone_with(folder) as alone:
        return alone


def _evict(folder: Path) -> bool:
    with alone_with(folder) as alone:
        if not alone:
            return False
        grave = Path(tempfile.mkdtemp(prefix=_EVICTED, dir=folder.parent))
        folder.rename(grave / folder.name)  # whoever waits for its lock sees that it is gone, and makes it anew
    shutil.rmtree(grave)
    return True
