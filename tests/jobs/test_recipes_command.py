"""`labelmill recipes`, and own recipe files in the commands that take recipes."""

from pathlib import Path

import pytest

from pipeline.recipes import built_in_names, load_recipe
from tests.command import assert_one_clear_line, labelmill_here
from tests.pipeline.asked import put_recipe


def test_every_recipe_is_listed_with_its_sentence():
    done = labelmill_here("recipes")
    assert done.code == 0
    for name in built_in_names():
        assert f"{name}: {load_recipe(name).file.about}" in done.stdout
    assert "styles: detailed, short, dense" in done.stdout


@pytest.mark.parametrize("name", built_in_names())
def test_what_is_shown_is_a_file_that_works(name: str, tmp_path: Path):
    done = labelmill_here("recipes", "show", name)
    assert done.code == 0
    (tmp_path / "copy.yaml").write_text(done.stdout)
    assert load_recipe(str(tmp_path / "copy.yaml")).file == load_recipe(name).file


def test_recipe_that_there_is_not_is_one_line():
    assert_one_clear_line(labelmill_here("recipes", "show", "captoin"), "did you mean 'caption'", code=2)


def test_recipe_file_that_is_wrong_is_one_line_with_its_place(tmp_path: Path):
    mine = put_recipe(tmp_path, "steps: [{prompts: ['Name {thing}']}]")
    done = labelmill_here("label", "picture.png", "--recipe", mine)
    assert_one_clear_line(done, "recipes.0.steps.0", "{thing}", f"(in {mine})", code=2)
