"""One answer and what it is judged against -> what its recipe's gates have to say of it."""

from dataclasses import dataclass

from pipeline.recipes.boxes import Box
from schemas.gates import GatesSpec

QUALITY_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class Judged:
    text: str
    finish_reason: str
    mean_logprob: float
    num_output_tokens: int
    instruction: str = ""
    question: str = ""
    ocr_text: str | None = None
    boxes: tuple[Box, ...] | None = None
    width_px: int = 0
    height_px: int = 0
    code_language: str | None = None
    parse_flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    gate: str
    flag: str
    then: str
    detail: str


def judge(judged: Judged, gates: GatesSpec) -> tuple[Finding, ...]:
    return ()
