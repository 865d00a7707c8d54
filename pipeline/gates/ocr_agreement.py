"""An answer and the OCR text of its image -> what the answer quotes and the OCR text does not have.

Spelling need not be the same: letters are compared by threes, without case, accents and spaces.
"""

import unicodedata
from collections.abc import Sequence

from pipeline.gates.quotations import quotations_of
from schemas.gates import OcrAgreementGate

_MIN_CHARS = 2
_ALIKE = str.maketrans("015|i", "olsll")
"""What OCR takes for one another."""


def unread_quotations(text: str, ocr_text: str, gate: OcrAgreementGate) -> Sequence[str]:
    """The quotations that are not to be found, if they are more than the gate allows; else none."""
    quotations = [quoted for quoted in quotations_of(text) if len(_letters(quoted)) >= _MIN_CHARS]
    if not quotations:
        return ()
    read = _letters(ocr_text)
    read_triples = _triples(read)
    unread = [one for one in quotations if not _is_found(_letters(one), read, read_triples, gate.min_similarity)]
    return unread if 1 - len(unread) / len(quotations) < gate.min_share else ()


def _letters(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if char.isalnum()).translate(_ALIKE)


def _triples(letters: str) -> set[str]:
    return {letters[start : start + 3] for start in range(len(letters) - 2)}


def _is_found(quoted: str, read: str, read_triples: set[str], min_similarity: float) -> bool:
    if quoted in read:
        return True
    triples = _triples(quoted)
    return len(triples) >= 2 and len(triples & read_triples) >= min_similarity * len(triples)
