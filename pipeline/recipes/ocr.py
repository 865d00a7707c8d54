"""An image -> all text that can be read in it, in the table `ocr`."""

from pipeline.recipes.recipe import Answer, EarlierLabels, Parsed, Recipe, Step
from schemas.recipe_specs import OcrSpec
from schemas.rows import ImageRow


class Ocr(Recipe):
    name, table, version = "ocr", "ocr", "1"
    spec: OcrSpec

    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        return [Step(item=0, prompt=("Read all the text in the image, line by line.",))]

    def parse(self, answer: Answer, step: Step, row: ImageRow) -> Parsed:
        # An image without text has an empty transcription, so that is no flag here.
        return Parsed(values={"text": answer.text.strip()})
