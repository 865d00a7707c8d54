"""The headers of a tar file -> the names of its members and where their bytes lie, without reading these.

Reads ustar, pax, GNU and the oldest headers. Everything that would make a reader miss a member is an error: `tarfile`
takes a damaged header in the midst of a file, or the place where it was cut off, for its end. Names are labels here:
nothing is ever written under one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20
"""Of a long name or a pax header: they are held in memory."""
MAX_NAME_BYTES = 1 << 14
_MAX_PADDING_BYTES = 1 << 20
"""Zeros that are read after the end; writers fill their last record with them, which has 10 KiB as a rule."""
_FILE_TYPES, _LINK_TYPES = b"0\x007", b"12"
_WITHOUT_DATA = b"123456"
_SPARSE_TYPE, _LONG_NAME_TYPE, _LONG_LINK_TYPE, _PIECE_TYPE = b"S", b"L", b"K", b"M"
_PAX_TYPES, _GLOBAL_PAX_TYPE = b"xX", b"g"

ReadAt = Callable[[int, int], bytes]
"""Place and number of bytes -> these bytes, fewer only where the file ends."""


class TarError(ValueError):
    """A tar file that cannot be read to its end; the message says where and why."""


@dataclass(frozen=True, kw_only=True)
class TarMember:
    name: str
    is_file: bool
    """Whether its bytes lie together at `offset`."""
    problem: str = ""
    """Why it is no such file, though something of that name may be wanted: a link, a sparse file. "" for folders."""
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Header:
    name: bytes
    type: bytes
    num_bytes: int
    is_extended_sparse: bool

    @property
    def num_data_bytes(self) -> int:
        """That follow in the file; a link may tell the size of what it links to."""
        return 0 if self.type in _WITHOUT_DATA else self.num_bytes


@dataclass
class _Extensions:
    """What earlier headers say of the next member, and (globals) of all later ones."""

    long_name: bytes = b""
    of_next: dict[bytes, bytes] = field(default_factory=dict)
    of_all: dict[bytes, bytes] = field(default_factory=dict)

    def value(self, key: bytes) -> bytes | None:
        return self.of_next.get(key, self.of_all.get(key))

    def forget_next(self) -> None:
        self.long_name, self.of_next = b"", {}


def tar_members(read_at: ReadAt, num_bytes: int) -> Iterator[TarMember]:
    """Every member, in the order of the file.

    Args:
        num_bytes: length of the file.

    Raises:
        TarError: there is no tar file, or it is cut off, or damaged, or goes on after its end. A file that lacks the
            empty blocks with which a tar ends is cut off: nobody can tell what else it had.
    """
    extensions, position = _Extensions(), 0
    while True:
        block = read_at(position, BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise TarError(_how_it_ends(block, position))
        if not block.strip(b"\0"):
            _check_end(read_at, position + BLOCK_BYTES, num_bytes)
            return
        header = _header(block, position)
        offset = position + BLOCK_BYTES
        if header.type in _PAX_TYPES or header.type in (_GLOBAL_PAX_TYPE, _LONG_NAME_TYPE, _LONG_LINK_TYPE):
            data = _extension_data(read_at, header, offset, num_bytes)
            _extend(extensions, header.type, data, offset)
        else:
            offset = _after_sparse_map(read_at, offset) if header.is_extended_sparse else offset
            header = _with_pax_size(header, extensions, position)
            member = _member(header, extensions, offset)
            _check_there(member.name, header.num_data_bytes, offset, num_bytes)
            extensions.forget_next()
            yield member
        position = offset + -(-header.num_data_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _header(block: bytes, position: int) -> _Header:
    said = _number(block[148:156], "checksum", position)
    plain = block[:148] + b" " * 8 + block[156:]
    # Old writers summed up signed bytes.
    if said not in (sum(plain), sum(byte - 256 if byte > 127 else byte for byte in plain)):
        raise TarError(
            f"the header at byte {position} is damaged: its checksum is wrong"
            if position
            else "it is no tar file: its first block is no header"
        )
    type_, name = block[156:157], _text(block[0:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    num_bytes = _number(block[124:136], "size", position)
    return _Header(
        name=name,
        type=type_,
        num_bytes=num_bytes,
        is_extended_sparse=type_ == _SPARSE_TYPE and block[482] != 0,
    )


def _number(raw: bytes, what: str, position: int) -> int:
    """Octal digits, or a binary number behind a marked first byte."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = raw.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):  # a sign is none of a size
        if what == "checksum" and not position:
            raise TarError("it is no tar file: its first block is no header")
        raise TarError(f"the header at byte {position} is damaged: its {what} is {raw!r}")
    return int(digits or b"0", 8)


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _extension_data(read_at: ReadAt, header: _Header, offset: int, num_bytes: int) -> bytes:
    if header.num_bytes > MAX_EXTENSION_BYTES:
        raise TarError(f"the header at byte {offset - BLOCK_BYTES} is followed by {header.num_bytes} bytes of names")
    _check_there("a long name", header.num_bytes, offset, num_bytes)
    return read_at(offset, header.num_bytes) if header.num_bytes else b""


def _extend(extensions: _Extensions, type_: bytes, data: bytes, offset: int) -> None:
    if type_ == _LONG_NAME_TYPE:
        extensions.long_name = _text(data)
    elif type_ == _GLOBAL_PAX_TYPE:
        extensions.of_all |= _pax_records(data, offset)
    elif type_ != _LONG_LINK_TYPE:  # where a link leads is not asked
        extensions.of_next |= _pax_records(data, offset)


def _pax_records(data: bytes, offset: int) -> dict[bytes, bytes]:
    """Of `<length> <key>=<value>\\n`, one after another; the length counts the whole record."""
    records, start = {}, 0
    while start < len(data) and data[start]:
        digits, space, _ = data[start : start + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[start + len(digits) + 1 : start + length]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or start + length > len(data):
            raise TarError(f"the pax header at byte {offset} is damaged")
        records[key] = value[:-1]
        start += length
    return records


def _with_pax_size(header: _Header, extensions: _Extensions, position: int) -> _Header:
    size = extensions.value(b"size")
    if size is None:
        return header
    if not size.isdigit() or len(size) > 20:
        raise TarError(f"the pax header before byte {position} is damaged: its size is {size[:40]!r}")
    return _Header(
        name=header.name, type=header.type, num_bytes=int(size), is_extended_sparse=header.is_extended_sparse
    )


def _member(header: _Header, extensions: _Extensions, offset: int) -> TarMember:
    name = extensions.value(b"GNU.sparse.name") or extensions.value(b"path") or extensions.long_name or header.name
    if len(name) > MAX_NAME_BYTES:
        raise TarError(f"the member at byte {offset} has a name of {len(name)} bytes")
    is_sparse = header.type == _SPARSE_TYPE or any(key.startswith(b"GNU.sparse.") for key in extensions.of_next)
    problem = ""
    if header.type in _LINK_TYPES:
        problem = "is a link, which is not followed"
    elif is_sparse:
        problem = "is a sparse file, whose bytes do not lie together"
    elif header.type == _PIECE_TYPE:
        problem = "is the rest of a file that begins in another volume"
    return TarMember(
        name=name.decode("utf-8", "backslashreplace"),
        is_file=header.type in _FILE_TYPES and not problem and not name.endswith(b"/"),
        problem=problem,
        offset=offset,
        num_bytes=header.num_data_bytes,
    )


def _after_sparse_map(read_at: ReadAt, offset: int) -> int:
    while True:
        block = read_at(offset, BLOCK_BYTES)
        offset += BLOCK_BYTES
        if len(block) < BLOCK_BYTES:
            raise TarError(
                f"it is cut off at byte {offset - BLOCK_BYTES + len(block)}, within the map of a sparse file"
            )
        if not block[504]:
            return offset


def _check_there(name: str, num_data_bytes: int, offset: int, num_bytes: int) -> None:
    if offset + num_data_bytes > num_bytes:
        raise TarError(
            f"it is cut off, or damaged: {name[:200]} has {num_data_bytes} bytes from byte {offset} on, and the file "
            f"ends at byte {num_bytes}"
        )


def _check_end(read_at: ReadAt, position: int, num_bytes: int) -> None:
    if num_bytes - position > _MAX_PADDING_BYTES or read_at(position, num_bytes - position).strip(b"\0"):
        raise TarError(
            f"it goes on after its end, which is at byte {position}: if several tars were joined, use tar --concatenate"
        )


def _how_it_ends(block: bytes, position: int) -> str:
    if position == 0:
        return f"it is no tar file: it has {len(block)} bytes" if block else "it is empty"
    what = "within a header" if block else "without the empty blocks that end a tar"
    return f"it is cut off: it ends at byte {position + len(block)}, {what}"
