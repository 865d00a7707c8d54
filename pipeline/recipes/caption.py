"""An image -> one detailed description, in the table `captions`."""

from pipeline.recipes.recipe import Answer, EarlierLabels, Parsed, Part, Recipe, Step, data, plain_text
from schemas.recipe_specs import CaptionSpec
from schemas.rows import ImageRow


class Caption(Recipe):
    name, table, version = "caption", "captions", "1"
    spec: CaptionSpec

    @classmethod
    def needs(cls, spec: CaptionSpec) -> tuple[str, ...]:
        return spec.hints

    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        prompt: list[Part] = ["Describe the image in detail."]
        for hint in self.spec.hints:
            text = "\n".join(label.values["text"] for label in earlier[hint]).strip()
            if text:  # what was read in the image is data: it can quote anything, even a turn mark
                prompt += [" Where it helps, quote the text that can be read in it:\n", data(text)]
        return [Step(item=0, prompt=tuple(prompt))]

    def parse(self, answer: Answer, step: Step, row: ImageRow) -> Parsed:
        text, flags = plain_text(answer)
        return Parsed(values={"caption": text}, flags=flags)
