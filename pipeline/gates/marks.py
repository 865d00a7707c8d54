"""An answer -> the first control mark in it, or the first trace of a wrong decoding; None where it is clean."""

import re

_CONTROL = re.compile(
    r"<[|｜]/?\w[^|｜<>\n]{0,40}[|｜]?>?"  # <|User|>, and what is left of it
    r"|\w[|｜]>"
    r"|</?(?:s|unk|pad|bos|eos|image|img_context|im_start|im_end)>"
    r"|\[/?(?:INST|SYS|PAD|UNK|CLS|SEP|MASK)\]|<</?SYS>>|<0x[0-9A-F]{2}>"
    r"|^[ \t]*#{2,3} ?(?:Human|Assistant|User|Instruction|Response):",
    re.MULTILINE,
)
# Replacement characters, bytes that no text holds, private use, a heap of accents, and the letters by which tokenizers
# write spaces.
_WRONG_CHARACTER = re.compile(
    "[\ufffd\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff]|[\u0300-\u036f]{4,}|锟斤拷|烫烫烫"
)
_TOKENIZER_SPACE = re.compile(r"(?<![▁█▂▃▄▅▆▇])▁[^\W\d_]|(?<!\w)[ĠĊ][A-Za-z]{2,}|[A-Za-z]Ġ[A-Za-z]")

# UTF-8 read as Windows-1252: each byte from 0x80 on has become one of these.
_HIGH_1252 = {bytes([byte]).decode("cp1252", "ignore") or chr(byte): byte for byte in range(0x80, 0x100)}
_RUN_1252 = re.compile(f"[{re.escape(''.join(_HIGH_1252))}]{{2,}}")
_RUN_1251 = re.compile(
    "(?:[РС][\u0080-\u00bf\u0402-\u040f\u0452-\u045f\u2013-\u2122\u20ac\u0451\u0401\u0490\u0491]){3,}"
)


def find_mark(text: str) -> str | None:
    if found := _CONTROL.search(text) or _WRONG_CHARACTER.search(text) or _TOKENIZER_SPACE.search(text):
        return found[0].strip()
    runs = [run[0] for run in _RUN_1252.finditer(text) if _is_misread(run[0])]
    runs += [run[0] for run in _RUN_1251.finditer(text)]
    return runs[0][:40] if runs else None


def _is_misread(run: str) -> bool:
    """Whether its bytes are UTF-8. Two letters in a row are proof; one alone only where no text has such a pair: German
    `Spaß“` and English `café”…` are well."""
    encoded = bytes(_HIGH_1252[char] for char in run)
    place = 0
    while place < len(encoded):
        first = _letter_bytes(encoded, place)
        if first and (_is_certain(encoded[place : place + 2]) or _letter_bytes(encoded, place + first)):
            return True
        place += first or 1
    return False


def _letter_bytes(encoded: bytes, place: int) -> int:
    """How many bytes the letter there has in UTF-8; 0 where there is none."""
    lead = encoded[place] if place < len(encoded) else 0
    length = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 0
    try:
        return length if len(encoded[place : place + length].decode()) == 1 else 0
    except UnicodeDecodeError:
        return 0


def _is_certain(pair: bytes) -> bool:
    lead, second = pair
    if lead in (0xC2, 0xC3):  # "Ã©"
        return second >= 0xA0
    return (lead == 0xE2 and second <= 0x84) or (lead == 0xF0 and second == 0x9F)  # quotation marks; pictures
