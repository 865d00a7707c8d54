"""For every built-in recipe: entries of a job, what an engine says to each prompt, and the labels to come of it."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.rows import Mark, Turn

WIDTH, HEIGHT = 222, 74
"""Of the first image; the second one is as much higher than wide. Three pixels to 9 and to 27 steps of the grid."""
ARROW = Mark(kind="arrow", points=((20.0, 10.0), (150.0, 50.0)))
CIRCLE = Mark(kind="circle", points=((10.0, 10.0), (40.0, 30.0)), color="yellow")
PAIRS = (
    Turn(role="system", text="Be exact."),
    Turn(role="user", text="What is the total?", images=(0,)),
    Turn(role="assistant", text="10"),
    Turn(role="user", text="And the tax?"),
    Turn(role="assistant", text="1"),
)


def box(label: str, *grid: int, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    """Of the model's numbers, each 0..999, in an image of that size."""
    x1, y1, x2, y2 = (pytest.approx(value / 999 * side) for value, side in zip(grid, (width, height) * 2, strict=True))
    return {"label": label, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`entries`: of the job; the last one's labels are looked at. `answers` as for `ExactEngine`, one prompt each."""

    entries: tuple[dict[str, Any], ...]
    answers: tuple[tuple[str, str], ...]
    values: list[dict[str, Any]]
    row: dict[str, Any] = field(default_factory=dict)
    num_images: int = 1


TABLE = "<table><tr><td>Total</td><td>12</td></tr></table>"
PROGRAM = "import matplotlib.pyplot as plt\n\nplt.bar(['a', 'b'], [1, 2])\nplt.show()"
PAGE = "<!doctype html>\n<html><body><h1>Shop</h1></body></html>"
QA = {"original_answer": None, "reasoning": None, "system": None, "question_images": []}

CASES = {
    "caption": Case(
        entries=({"name": "caption"},),
        answers=(("", " A house by the sea. "),),
        values=[{"caption": "A house by the sea.", "style": "detailed"}],
    ),
    "grounded-caption": Case(
        entries=({"name": "grounded-caption"},),
        answers=(("<|grounding|>", "<|ref|>A house<|/ref|><|det|>[[0, 0, 500, 999]]<|/det|> in the rain."),),
        values=[
            {
                "caption": "A house in the rain.",
                "text": "<|ref|>A house<|/ref|><|det|>[[0, 0, 500, 999]]<|/det|> in the rain.",
                "boxes": [box("A house", 0, 0, 500, 999)],
            }
        ],
    ),
    "grounding": Case(
        entries=({"name": "grounding", "queries": ["the dog", "the cat"]},),
        answers=(
            ("the dog", "<|ref|>the dog<|/ref|><|det|>[[10, 20, 30, 40]]<|/det|>"),
            ("the cat", "<|ref|>the cat<|/ref|><|det|>[]<|/det|>"),
        ),
        values=[
            {
                "query": "the dog",
                "text": "<|ref|>the dog<|/ref|><|det|>[[10, 20, 30, 40]]<|/det|>",
                "boxes": [box("the dog", 10, 20, 30, 40)],
                "image_index": 0,
            },
            {"query": "the cat", "text": "<|ref|>the cat<|/ref|><|det|>[]<|/det|>", "boxes": [], "image_index": 0},
        ],
    ),
    "grounding-of-caption": Case(
        entries=({"name": "grounding-of-caption"},),
        answers=(
            ("A man walks his dog.", "Objects:\n1. a man\n2. his dog\n2. his dog"),
            ("<|ref|>a man<|/ref|>", "<|ref|>a man<|/ref|><|det|>[[0, 0, 100, 900]]<|/det|>"),
            ("<|ref|>his dog<|/ref|>", "<|ref|>his dog<|/ref|><|det|>[]<|/det|>"),
            ("escri", "A man walks his dog."),
        ),
        values=[
            {
                "query": "a man",
                "text": "<|ref|>a man<|/ref|><|det|>[[0, 0, 100, 900]]<|/det|>",
                "boxes": [box("a man", 0, 0, 100, 900)],
                "image_index": 0,
            },
            {"query": "his dog", "text": "<|ref|>his dog<|/ref|><|det|>[]<|/det|>", "boxes": [], "image_index": 0},
        ],
    ),
    "in-context-grounding": Case(
        entries=({"name": "in-context-grounding"},),
        num_images=2,
        answers=(("rectangle", "<|ref|>cup<|/ref|><|det|>[[0, 0, 999, 500]]<|/det|>"),),
        values=[
            {
                "query": None,
                "text": "<|ref|>cup<|/ref|><|det|>[[0, 0, 999, 500]]<|/det|>",
                "boxes": [box("cup", 0, 0, 999, 500, width=HEIGHT, height=WIDTH)],
                "image_index": 1,
            }
        ],
    ),
    "ocr": Case(
        entries=({"name": "ocr"},),
        answers=(("", "EXIT\nNo smoking"),),
        values=[{"text": "EXIT\nNo smoking", "format": "plain"}],
    ),
    "ocr-markdown": Case(
        entries=({"name": "ocr-markdown"},),
        answers=(("Markdown", "```markdown\n# Report\n\n- one\n- two\n```"),),
        values=[{"text": "# Report\n\n- one\n- two", "format": "markdown"}],
    ),
    "ocr-document": Case(
        entries=({"name": "ocr-document"},),
        answers=(("paragraph", "It was late.\n\nNobody came."),),
        values=[{"text": "It was late.\n\nNobody came.", "format": "plain"}],
    ),
    "ocr-table": Case(
        entries=({"name": "ocr-table"},),
        answers=(("HTML", f"```html\n{TABLE}\n```"),),
        values=[{"text": TABLE, "format": "html"}],
    ),
    "ocr-formula": Case(
        entries=({"name": "ocr-formula"},),
        answers=(("LaTeX", r"\frac{a}{b} = c^{2}"),),
        values=[{"text": r"\frac{a}{b} = c^{2}", "format": "latex"}],
    ),
    "ocr-scene": Case(
        entries=({"name": "ocr-scene"},),
        answers=(("", "TAXI\n4711"),),
        values=[{"text": "TAXI\n4711", "format": "plain"}],
    ),
    "qa": Case(
        entries=({"name": "qa", "questions": ["How many?"]},),
        answers=(("How many?", "Three."),),
        values=[{**QA, "question": "How many?", "answer": "Three.", "question_images": [0]}],
    ),
    "qa-regenerate": Case(
        entries=({"name": "qa-regenerate"},),
        row={"turns": PAIRS},
        answers=(
            ("What is the total?", "The total is 12."),
            ("And the tax?", "The tax is 2."),
            ("", "TOTAL 12 TAX 2"),
        ),
        values=[
            {
                "question": "What is the total?",
                "answer": "The total is 12.",
                "original_answer": "10",
                "reasoning": None,
                "system": "Be exact.",
                "question_images": [0],
            },
            {**QA, "question": "And the tax?", "answer": "The tax is 2.", "original_answer": "1"},
        ],
    ),
    "qa-generate": Case(
        entries=({"name": "qa-generate", "count": 2},),
        answers=(
            ("2 different questions", "1. Who signed?\n2. When?\n3. Where?"),
            ("2 questions", "1. Who signed?\n2. When?\n3. Where?"),
            ("2 such questions", "1. Who signed?\n2. When?\n3. Where?"),
            ("Who signed?", "Ada Lovelace signed."),
            ("When?", "In 1843."),
            ("", "Signed by Ada Lovelace in 1843"),
        ),
        values=[
            {**QA, "question": "Who signed?", "answer": "Ada Lovelace signed.", "question_images": [0]},
            {**QA, "question": "When?", "answer": "In 1843."},
        ],
    ),
    "chart-to-code": Case(
        entries=({"name": "chart-to-code"},),
        answers=(("matplotlib", f"Here it is:\n```python\n{PROGRAM}\n```\nIt draws two bars."),),
        values=[{"code": PROGRAM, "language": "python"}],
    ),
    "web-to-code": Case(
        entries=({"name": "web-to-code"},),
        answers=(("HTML", f"```html\n{PAGE}\n```"),),
        values=[{"code": PAGE, "language": "html"}],
    ),
    "visual-prompt": Case(
        entries=({"name": "visual-prompt", "marks_from": "marks", "variants": [0]},),
        row={"marks": (ARROW, CIRCLE)},
        answers=(("red arrow", "A lamp."), ("yellow circle", "A door."), ("", "not asked")),
        values=[
            {
                "question": "What is marked with the red arrow in this image? Describe it in detail.",
                "answer": "A lamp.",
                "mark": {
                    "kind": "arrow",
                    "points": [{"x": 20.0, "y": 10.0}, {"x": 150.0, "y": 50.0}],
                    "color": "red",
                },
            },
            {
                "question": "What is marked with the yellow circle in this image? Describe it in detail.",
                "answer": "A door.",
                "mark": {
                    "kind": "circle",
                    "points": [{"x": 10.0, "y": 10.0}, {"x": 40.0, "y": 30.0}],
                    "color": "yellow",
                },
            },
        ],
    ),
    "score": Case(
        entries=({"name": "caption"}, {"name": "score", "of": ["caption"]}),
        answers=(("one digit from 1 to 5", "4"), ("", "A house by the sea.")),
        values=[{"score": 4, "text": "A house by the sea.", "of_recipe": "caption", "of_item": 0}],
    ),
}
