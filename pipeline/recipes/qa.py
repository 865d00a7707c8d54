"""Questions about an image -> answers, one row of the table `qa` each, beside the answer the source had."""

from pipeline.recipes.recipe import Answer, EarlierLabels, Parsed, Recipe, Step, data, plain_text
from schemas.recipe_specs import QaSpec
from schemas.rows import ImageRow


class Qa(Recipe):
    name, table, version = "qa", "qa", "1"
    spec: QaSpec

    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        return [Step(item=item, prompt=(data(question),)) for item, question in enumerate(self._questions(row))]

    def parse(self, answer: Answer, step: Step, row: ImageRow) -> Parsed:
        text, flags = plain_text(answer)
        originals = () if self.spec.questions else row.original_answers
        values = {
            "question": self._questions(row)[step.item],
            "answer": text,
            "original_answer": originals[step.item] if step.item < len(originals) else None,
        }
        return Parsed(values=values, flags=flags)

    def _questions(self, row: ImageRow) -> tuple[str, ...]:
        """The job's list, or those of the image's own row in the source."""
        return self.spec.questions or row.questions
