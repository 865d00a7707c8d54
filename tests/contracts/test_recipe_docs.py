"""docs/recipes.md names every key of a recipe file, and the README every recipe; the README's own recipe works."""

import asyncio
import re
from typing import get_args

import pytest
from pydantic import BaseModel

from pipeline.recipes import built_in_names, load_recipe, make_recipes
from pipeline.recipes.fit import keys_of
from schemas.gates import GatesSpec
from schemas.recipe_file import FACTS, OF_THE_ROW, Generation, LoopStopSpec, RecipeFile, Retry, StepFile, Style
from schemas.recipe_specs import RecipeSpec
from schemas.tables import LABEL_TABLES
from tests.command import REPOSITORY
from tests.pipeline.exact_engine import ExactEngine
from tests.pipeline.rows import one_image_row

README = (REPOSITORY / "README.md").read_text()
REFERENCE = (REPOSITORY / "docs" / "recipes.md").read_text()


def gate_models() -> list[type[BaseModel]]:
    return [get_args(field.annotation)[0] for field in GatesSpec.model_fields.values()]


@pytest.mark.parametrize(
    "model",
    [RecipeFile, StepFile, Style, Generation, LoopStopSpec, Retry, GatesSpec, *gate_models()],
    ids=lambda model: model.__name__,
)
def test_every_key_of_a_recipe_file_is_in_the_reference(model: type[BaseModel]):
    missing = [key for key in model.model_fields if not re.search(rf"`{key}\b", REFERENCE)]
    assert missing == []


@pytest.mark.parametrize("words", [OF_THE_ROW, FACTS, LABEL_TABLES], ids=["each", "hints", "tables"])
def test_every_word_that_a_key_takes_is_in_the_reference(words: tuple[str, ...]):
    assert [word for word in words if f"`{word}`" not in REFERENCE] == []


def test_keys_that_the_reference_shows_with_defaults_have_these():
    defaults = {
        **{key: field.default for key, field in LoopStopSpec.model_fields.items()},
        **{key: field.default for key, field in Generation.model_fields.items()},
    }
    shown = re.findall(r"`(\w+)` \((\d+)\)", REFERENCE)
    assert len(shown) >= 7
    assert {key: float(value) for key, value in shown} == {
        **{key: value for key, value in defaults.items() if key != "stop_on_loop"},
    }


def test_table_of_the_readme_lists_every_recipe_and_what_it_takes():
    lines = [line for line in README.splitlines() if line.startswith("| `")]
    of_all = keys_of(load_recipe("ocr").file) | {"style", "hints"}
    for name in built_in_names():
        (line,) = [line for line in lines if f"`{name}`" in line.split("|")[1]]
        file = load_recipe(name).file
        takes = [*(keys_of(file) - of_all), *file.styles, *file.hints]
        assert [word for word in takes if f"`{word}`" not in line] == [], name


def test_recipe_of_the_readme_can_be_used(tmp_path):
    (text,) = re.findall(r"```yml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "alt-text.yaml"
    path.write_text(text)
    recipes = make_recipes([RecipeSpec(name=str(path), hints=["ocr"])], checkpoint_digest="c")
    assert [(recipe.name, recipe.is_written) for recipe in recipes] == [("ocr", False), ("alt-text", True)]

    class Views:
        async def all_images(self):
            return engine.open([])

    engine = ExactEngine(("", "A red door."))
    row = one_image_row(sample_id="a", image_uri="/a.png", image_sha256="0")
    (label,) = asyncio.run(recipes[1].label(Views(), row, {"ocr": []}))
    assert (label.recipe, label.values, label.flags) == ("alt-text", {"caption": "A red door.", "style": "plain"}, ())
