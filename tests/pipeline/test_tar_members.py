import random
import tarfile

import pytest

from pipeline.tar_members import TarError, tar_members
from tests.pipeline.tars import BLOCK, END, header, padded, tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members_of(data: bytes):
    return list(tar_members(lambda place, num_bytes: data[place : place + num_bytes], len(data)))


def files_of(data: bytes):
    return [(one.name, data[one.offset : one.offset + one.num_bytes]) for one in members_of(data) if one.is_file]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS.keys())
def test_members_are_found_where_tarfile_wrote_them(format):
    files = [("a.jpg", b"A" * 1000), ("deep/er/b.json", b"{}"), ("empty.txt", b""), ("c.png", b"C" * 512)]
    data = tar([("deep/", b""), *files], format=format)
    assert files_of(data) == files
    assert [one.is_file for one in members_of(data)] == [False, True, True, True, True]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_long_names_and_names_in_other_scripts_are_whole(format):
    files = [("d" * 300 + "/" + "ü" * 200 + ".jpg", b"A"), ("short.jpg", b"B"), ("猫.jpg", b"C")]
    assert files_of(tar(files, format=format)) == files


def test_ustar_name_is_put_together_from_its_two_fields():
    files = [("p" * 120 + "/" + "n" * 90 + ".jpg", b"A")]
    assert files_of(tar(files)) == files


def test_prefix_field_of_gnu_headers_holds_times_and_no_name():
    block = bytearray(header("a.jpg", 1))
    block[257:265], block[345:356] = b"ustar  \0", b"14723472347"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    assert files_of(bytes(block) + padded(b"A") + END) == [("a.jpg", b"A")]


def test_pax_header_for_all_is_overruled_by_one_for_the_next():
    records = b"16 path=all.jpg\n", b"16 path=one.jpg\n"
    for_all, for_next = (
        header("pax", 16, type_=type_) + padded(record) for type_, record in zip((b"g", b"x"), records, strict=True)
    )
    data = for_all + for_next + header("a", 1) + padded(b"A") + header("b", 1) + padded(b"B") + END
    assert files_of(data) == [("one.jpg", b"A"), ("all.jpg", b"B")]


def test_size_may_be_binary_or_come_from_a_pax_header():
    binary = header("a.jpg", 0, raw_size=b"\x80" + (3).to_bytes(11, "big")) + padded(b"AAA")
    by_pax = header("pax", 9, type_=b"x") + padded(b"9 size=3\n") + header("b.jpg", 0) + padded(b"BBB")
    assert files_of(binary + by_pax + END) == [("a.jpg", b"AAA"), ("b.jpg", b"BBB")]


def test_headers_whose_checksum_was_made_of_signed_bytes_are_right():
    block = bytearray(header("a.jpg", 1))
    block[0:5] = "ü.jp".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(byte - 256 if byte > 127 else byte for byte in block):06o}\0 ".encode()
    assert files_of(bytes(block) + padded(b"A") + END) == [("ü.jp", b"A")]


@pytest.mark.parametrize("type_", [b"1", b"2"])
def test_link_has_no_bytes_even_where_it_tells_a_size(type_):
    data = header("a.jpg", 5000, type_=type_) + header("b.jpg", 1) + padded(b"B") + END
    link, file = members_of(data)
    assert (link.is_file, link.problem, link.num_bytes) == (False, "is a link, which is not followed", 0)
    assert (file.name, file.is_file) == ("b.jpg", True)


def test_sparse_file_is_passed_over_with_its_map():
    more = bytearray(BLOCK)
    more[504] = 1
    data = header("a.jpg", 600, type_=b"S", byte_482=1) + bytes(more) + bytes(BLOCK) + bytes(2 * BLOCK)
    sparse, file = members_of(data + header("b.jpg", 1) + padded(b"B") + END)
    assert (sparse.is_file, sparse.problem) == (False, "is a sparse file, whose bytes do not lie together")
    assert (file.name, file.is_file) == ("b.jpg", True)


def test_sparse_file_of_pax_has_the_name_that_its_header_tells():
    records = b"22 GNU.sparse.major=1\n28 GNU.sparse.name=real.jpg\n"
    data = header("pax", len(records), type_=b"x") + padded(records) + header("GNUSparse.0/real", 1) + padded(b"A")
    (sparse,) = members_of(data + END)
    assert (sparse.name, sparse.is_file, bool(sparse.problem)) == ("real.jpg", False, True)


def test_devices_and_folders_are_nobodys_problem():
    data = b"".join(header("dev.jpg", 0, type_=type_) for type_ in (b"3", b"4", b"5", b"6")) + END
    assert [(one.is_file, one.problem) for one in members_of(data)] == [(False, "")] * 4


def test_name_that_is_no_utf8_is_shown_with_its_bytes():
    block = bytearray(header("a.jpg", 1))
    block[0] = 0xFF
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    assert files_of(bytes(block) + padded(b"A") + END) == [("\\xff.jpg", b"A")]


WHOLE = tar([("a.jpg", b"A" * 700), ("b.jpg", b"B" * 700)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "it is empty", id="nothing"),
        pytest.param(b"\x1f\x8b" + bytes(600), "no tar file", id="gzip"),
        pytest.param(b"<html>", "no tar file: it has 6 bytes", id="a few bytes"),
        pytest.param(
            WHOLE[:600], "a.jpg has 700 bytes from byte 512 on, and the file ends at byte 600", id="in a file"
        ),
        pytest.param(WHOLE[:1700], "ends at byte 1700, within a header", id="in a header"),
        pytest.param(WHOLE[:1536], "without the empty blocks", id="between members"),
        pytest.param(WHOLE[:1536] + b"x" * 512 + WHOLE[2048:], "byte 1536 is damaged", id="damaged header"),
        pytest.param(WHOLE + WHOLE, "goes on after its end", id="two tars in one file"),
        pytest.param(WHOLE[:3072] + bytes(2 << 20) + WHOLE, "goes on after its end", id="far behind the end"),
        pytest.param(header("a", 0, raw_size=b"\x80" + b"\x7f" * 11) + END, "a has", id="size beyond any disk"),
        pytest.param(header("a", 0, raw_size=b"\xff" * 12) + END, "its size is", id="size below zero"),
        pytest.param(header("a", 0, raw_size=b"12x4567\0\0\0\0\0") + END, "its size is", id="size of letters"),
        pytest.param(header("n", 2 << 20, type_=b"L") + bytes(4 << 20), "bytes of names", id="endless name"),
        pytest.param(header("n", 900, type_=b"x") + padded(b"9" * 900) + END, "pax header", id="pax without records"),
        pytest.param(header("n", 5, type_=b"x") + padded(b"99 a=") + END, "pax header", id="pax record beyond its end"),
        pytest.param(
            header("n", 8, type_=b"x") + padded(b"0 a=b\n\n\n") + END, "pax header", id="pax record of length 0"
        ),
        pytest.param(
            header("n", 11, type_=b"x") + padded(b"11 size=-1\n") + header("a", 0) + END, "its size is", id="pax size"
        ),
        pytest.param(
            header("n", 20_000, type_=b"L") + padded(b"n" * 20_000) + header("a", 0) + END, "a name of", id="long"
        ),
        pytest.param(header("a", 0, type_=b"S", byte_482=1), "map of a sparse file", id="sparse map"),
    ],
)
def test_file_that_cannot_be_read_to_its_end_is_an_error_that_says_where(data: bytes, words: str):
    with pytest.raises(TarError, match=words):
        members_of(data)


def test_zeros_of_the_last_record_and_one_empty_block_are_ends():
    assert len(members_of(WHOLE[:3072] + bytes(BLOCK))) == len(members_of(WHOLE + bytes(1 << 19))) == 2


def test_nothing_but_headers_is_read():
    read = []

    def read_at(place, num_bytes):
        read.append((place, num_bytes))
        return WHOLE[place : place + num_bytes]

    members = list(tar_members(read_at, len(WHOLE)))
    assert [one.name for one in members] == ["a.jpg", "b.jpg"]
    assert read[:3] == [(0, 512), (1536, 512), (3072, 512)]


def test_damage_anywhere_is_an_error_or_leaves_members_that_lie_within_the_file():
    whole = tar([("d" * 150 + "/a.jpg", b"A" * 700), ("b.jpg", b"B" * 10)], format=tarfile.PAX_FORMAT)
    generator, ends = random.Random(0), set()
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 1, 8])):
            damaged[generator.randrange(5 * BLOCK)] = generator.randrange(256)
        try:
            found = members_of(bytes(damaged))
        except TarError:
            ends.add("error")
        else:
            ends.add("read")
            assert all(0 <= one.offset <= one.offset + one.num_bytes <= len(whole) for one in found)
    assert ends == {"error", "read"}
