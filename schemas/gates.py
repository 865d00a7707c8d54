"""The `gates` of a recipe file -> one frozen spec each: what an answer must not be, and what follows where it is.

Knows thresholds, not how they are measured (see `pipeline.quality`). The defaults are meant for a whole corpus: an
ordinary caption, transcription or answer passes all of them.
"""

from typing import Literal

from pydantic import Field

from schemas.recipe_specs import Real, Spec, Whole

Then = Literal["flag", "retry", "reject"]


class Gate(Spec):
    """What all gates share."""

    then: Then = "flag"
    """flag: name it in the row's `flags`; retry: decode again, and flag where no attempt passes; reject: decode again,
    and quarantine where no attempt passes."""


class RepetitionGate(Gate):
    """The answer goes round in circles: a piece comes again and again in a row, or makes up most of the text."""

    min_repeats: Whole = Field(default=6, ge=2)
    """So often in a row a piece of some words must come. A whole sentence counts from half of that on; a piece of one
    or two words, numbers, and what a table may well repeat count from a multiple of it on."""
    max_run_chars: Whole = Field(default=40, ge=2)
    """Longest run of one character; four times as long for those that draw lines and leaders, such as dots."""
    max_repeated_share: Real = Field(default=0.6, gt=0, le=1)
    """Largest part of the text that may be sentences which came before, or words of phrases that come all the time."""
    max_compression: Real = Field(default=14.0, gt=1)
    """How many times smaller than the text its zlib compression may be, from 1000 characters on."""
    own_words: bool = False
    """The answer is the model's own, no transcription. One word counts from `min_repeats` + 2 on then, and a line like
    a sentence; what stands in an image may have a line `min_repeats` times, and a refrain."""


class TruncatedGate(Gate):
    """The answer was cut off, because it was too long or because it looped."""


class EmptyGate(Gate):
    """The answer says nothing: white space, punctuation, quotes and marks alone."""


class EchoGate(Gate):
    """The answer repeats what was asked, wholly or before it says anything else."""

    min_words: Whole = Field(default=3, ge=1)
    """Shorter prompts may well be repeated; of languages without spaces, two characters are a word."""


class RefusalGate(Gate):
    """The answer declines, or talks about itself, the user or the upload instead of the image."""

    boilerplate: bool = True
    """Also find phrases around an answer, such as "The image you provided"; their flag is `boilerplate`."""


class LanguageGate(Gate):
    """The answer, or a long piece of it, is not in the language of the question, or else of the instruction."""

    min_letters: Whole = Field(default=24, ge=1)
    """Shorter texts have no language; in a script that the wanted language is not written in, half as many do. A letter
    of Chinese, Japanese or Korean counts for three."""
    min_confidence: Real = Field(default=0.9, gt=0, le=1)
    """Probability of another language from which on the detector is believed."""


class OcrAgreementGate(Gate):
    """The answer quotes what cannot be read in the image."""

    min_share: Real = Field(default=0.5, ge=0, le=1)
    """Smallest part of the quotations that must be found, in some similar spelling, in the OCR text."""
    min_similarity: Real = Field(default=0.7, gt=0, le=1)
    """Part of a quotation's letter triples that the OCR text must have for it to count as found."""


class BoxesGate(Gate):
    """The boxes are not where boxes of things in an image are."""

    max_boxes: Whole = Field(default=100, ge=1)
    min_side_px: Real = Field(default=1.0, ge=0)
    """Thinner ones are degenerate."""
    max_outside_px: Real = Field(default=1.0, ge=0)
    """How far a corner may lie outside of the image."""
    max_iou: Real = Field(default=0.9, gt=0, le=1)
    """Two boxes of one label that overlap more are near-duplicates (intersection over union)."""
    max_area_share: Real = Field(default=0.98, gt=0, le=1)
    """Of the image; a larger box covers all of it and finds nothing."""
    parse_flags: tuple[str, ...] = ("boxes_malformed", "boxes_out_of_range", "boxes_absent")
    """What the parser found that counts as a fault too."""


class LowLogprobGate(Gate):
    """The model itself did not find the answer likely."""

    min_mean_logprob: Real = -1.5
    """Natural logarithm, mean over the answer's tokens."""
    min_tokens: Whole = Field(default=4, ge=1)
    """Of shorter answers the mean says little."""


class CodeGate(Gate):
    """The code cannot be read: Python and JSON that do not parse, HTML and LaTeX with unbalanced tags or braces."""


class MarksGate(Gate):
    """Prose that holds control marks, or characters that a wrong decoding left: `<|det|>`, U+FFFD, "cafÃ©"."""

    own_words: bool = False
    """The answer is the model's own, no transcription. Also find the next turn of a dialogue after it, and placeholders
    such as "[insert caption here]"; their flag is `placeholder`."""


class FormGate(Gate):
    """The answer lacks a part that its form demands, and the parser found nothing there."""

    parse_flags: tuple[str, ...] = ("final_answer_absent", "score_absent")
    """What the parser says then."""


class DuplicateGate(Spec):
    """The text is that of an earlier row of the dataset. Judged when the dataset is written, and flagged there."""

    min_chars: Whole = Field(default=24, ge=1)
    """Shorter texts, such as "yes", may come as often as they like."""


class GatesSpec(Spec):
    """A gate that is not given does not judge."""

    repetition: RepetitionGate | None = None
    truncated: TruncatedGate | None = None
    empty: EmptyGate | None = None
    echo: EchoGate | None = None
    refusal: RefusalGate | None = None
    marks: MarksGate | None = None
    language: LanguageGate | None = None
    ocr_agreement: OcrAgreementGate | None = None
    boxes: BoxesGate | None = None
    low_logprob: LowLogprobGate | None = None
    code: CodeGate | None = None
    form: FormGate | None = None
    duplicate: DuplicateGate | None = None
