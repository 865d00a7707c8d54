"""How many images a recipe takes, and which columns it may fill with one text."""

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.owed import OWED_COLUMNS, owed_labels
from pipeline.recorded_recipes import RecordedRecipe
from schemas.recipe_file import RecipeFile
from schemas.recipe_specs import RecipeSpec
from schemas.tables import MANIFEST


def recipe_file(**keys: object) -> RecipeFile:
    record = {"name": "mine", "about": "x", "table": "ocr", "steps": [{"prompts": ["Read."]}], **keys}
    return RecipeFile.model_validate(record)


@pytest.mark.parametrize(
    ("bounds", "taken"),
    [
        ({}, [False, True, True, True]),
        ({"min_images": 0}, [True, True, True, True]),
        ({"min_images": 2, "max_images": 2}, [False, False, True, False]),
        ({"min_images": 0, "max_images": 0}, [True, False, False, False]),
    ],
)
def test_sample_is_taken_by_its_number_of_images(bounds: dict, taken: list[bool]):
    assert [recipe_file(**bounds).takes(num_images) for num_images in range(4)] == taken


def test_verification_expects_no_label_of_a_sample_that_is_not_taken():
    image = {"uri": "/a.png", "version": "", "member": ""}
    columns = {name: pa.nulls(4, MANIFEST.field(name).type) for name in OWED_COLUMNS}
    columns["images"] = pa.array([[image] * number for number in range(4)], MANIFEST.field("images").type)
    recipe = RecordedRecipe(id="mine", spec=RecipeSpec(name="mine"), file=recipe_file(min_images=2, max_images=2))

    assert owed_labels(recipe, pa.RecordBatch.from_pydict(columns)).tolist() == [[0, 0, 1, 0], [0, 0, 1, 0]]


def test_bounds_that_nothing_is_within_are_refused():
    with pytest.raises(ValidationError, match="is less than min_images, which is 2"):
        recipe_file(min_images=2, max_images=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"language": "html"}, "language is no column of a label table with texts"),
        ({"score": "1"}, "ocr has text, format"),
    ],
)
def test_fixed_text_goes_into_a_text_column_of_the_recipes_own_table(values: dict[str, str], words: str):
    assert recipe_file(values={"format": "html"}).values == {"format": "html"}
    with pytest.raises(ValidationError, match=words):
        recipe_file(values=values)
