"""An answer -> the first control mark in it, or the first trace of a wrong decoding; None where it is clean."""

import re

_CONTROL = re.compile(
    r"<[|｜]/?\w[^|｜<>\n]{0,40}[|｜]?>?"  # <|User|>, and what is left of it
    r"|\w[|｜]>"
    r"|</?(?:s|unk|pad|bos|eos|image|img_context|im_start|im_end)>"
    r"|\[/?(?:INST|SYS|PAD|UNK|CLS|SEP|MASK)\]|<</?SYS>>|<0x[0-9A-F]{2}>"
    r"|^\s*#{2,3} ?(?:Human|Assistant|User|Instruction|Response):",
    re.MULTILINE,
)
# Replacement characters, bytes that no text holds, private use, and the letters by which tokenizers write spaces.
_WRONG_CHARACTER = re.compile(
    "[\ufffd\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff]|锟斤拷|烫烫烫"
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
    """Whether its bytes are UTF-8. A single letter of two bytes needs a first byte that is hardly a letter before such a
    mark in any text: German `Spaß“` and Portuguese `MAÇÃ”` are well."""
    encoded = bytes(_HIGH_1252[char] for char in run)
    for start in range(len(encoded)):  # a run may begin with a letter of its own, and be cut where it is no letter
        for end in (len(encoded), start + 4, start + 3):
            if _num_letters(encoded[start:end]) >= 1 and end - start >= 3:
                return True
        if encoded[start] in (0xC2, 0xC3) and encoded[start + 1 : start + 2] and 0xA0 <= encoded[start + 1] <= 0xBF:
            return True
        if start >= 64:
            break
    return False


def _num_letters(encoded: bytes) -> int:
    try:
        return len(encoded.decode())
    except UnicodeDecodeError:
        return 0
