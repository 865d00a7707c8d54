"""Queries about an image -> where each is, as boxes in pixels, one row of the table `grounding` each."""

from dataclasses import asdict

from pipeline.recipes.boxes import parse_boxes
from pipeline.recipes.recipe import Answer, EarlierLabels, Parsed, Recipe, Step, data
from schemas.recipe_specs import GroundingSpec
from schemas.rows import ImageRow


class Grounding(Recipe):
    name, table, version = "grounding", "grounding", "1"
    spec: GroundingSpec

    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        return [
            Step(item=item, prompt=("<|ref|>", data(query), "<|/ref|>."))
            for item, query in enumerate(self._queries(row))
        ]

    def parse(self, answer: Answer, step: Step, row: ImageRow) -> Parsed:
        query = self._queries(row)[step.item]
        parsed = parse_boxes(answer.text, default_label=query, width_px=row.width_px, height_px=row.height_px)
        values = {"query": query, "text": answer.text, "boxes": [asdict(box) for box in parsed.boxes]}
        return Parsed(values=values, flags=parsed.flags)

    def _queries(self, row: ImageRow) -> tuple[str, ...]:
        return self.spec.queries or row.queries
