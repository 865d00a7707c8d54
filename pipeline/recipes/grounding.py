"""Queries about an image -> where each is, as boxes in pixels, one row of the table `grounding` each."""

from dataclasses import asdict

from model.constraint_specs import BoxList
from pipeline.recipes.boxes import parse_boxes
from pipeline.recipes.recipe import Answer, EarlierLabels, Parsed, Recipe, Step, data
from schemas.recipe_specs import GroundingSpec
from schemas.rows import ImageRow


class Grounding(Recipe):
    """The answer's form is forced while it is generated: whatever the weights, it opens with the query and holds boxes
    that can be parsed, or none."""

    name, table, version = "grounding", "grounding", "2"
    spec: GroundingSpec

    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        return [
            Step(
                item=item,
                prompt=("<|ref|>", data(query), "<|/ref|>."),
                constraint=BoxList(label=query, max_boxes=self.spec.max_boxes),
            )
            for item, query in enumerate(self._queries(row))
        ]

    def parse(self, answer: Answer, step: Step, row: ImageRow) -> Parsed:
        query = self._queries(row)[step.item]
        # Past the query, which is data: it may spell the marks of a box.
        boxes = answer.text.removeprefix(f"<|ref|>{query}<|/ref|>")
        parsed = parse_boxes(boxes, default_label=query, width_px=row.width_px, height_px=row.height_px)
        values = {"query": query, "text": answer.text, "boxes": [asdict(box) for box in parsed.boxes]}
        return Parsed(values=values, flags=parsed.flags)

    def _queries(self, row: ImageRow) -> tuple[str, ...]:
        return self.spec.queries or row.queries
