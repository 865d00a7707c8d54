"""A job file held to the recipes that it names, as every command reads it."""

import textwrap
from pathlib import Path

import pytest

from jobs.job_file import read_job
from schemas.job import JobError

MINE = """
name: mine
about: What I want to know.
table: captions
steps:
  - prompts: ["Say it."]
    hints: {gist: " In short:{gist}", qa: " Asked:{qa}", ocr: " Read:{ocr}"}
"""


def job_with(recipes: str, **parts: str) -> str:
    lines = {"name": "photos", "source": "images", "recipes": recipes, "output": "labels", **parts}
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def problems(text: str, *overrides: str) -> dict[str, str]:
    with pytest.raises(JobError) as caught:
        read_job(text, overrides)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path / "mine.yaml"


def test_mistakes_in_the_form_and_in_the_recipes_are_reported_at_once_one_line_each():
    text = """
    name: my photos
    source: {url: images}
    recipes: [captoin, {name: ocr, max_new_tokens: 0}, {name: qa}, {name: caption, style: long}]
    limits: {max_bytes: many}
    """
    with pytest.raises(JobError) as caught:
        read_job(textwrap.dedent(text))

    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "name",
        "source.uri",
        "source.url",
        "recipes.1.max_new_tokens",
        "output",
        "limits.max_bytes",
        "recipes.0",
        "recipes.2",
        "recipes.3.style",
    ]


@pytest.mark.parametrize(
    ("recipe", "path", "message"),
    [
        pytest.param("captoin", "", "unknown recipe 'captoin'; did you mean 'caption'? known recipes: ", id="misspelt"),
        pytest.param("nothing.yaml", "", "nothing.yaml: there is no such recipe file", id="no such file"),
        pytest.param("{name: ocr, queries: [a]}", ".queries", "ocr takes no queries", id="key of another recipe"),
        pytest.param("{name: ocr, style: short}", ".style", "ocr takes no style", id="style of another recipe"),
        pytest.param("{name: caption, style: shrt}", ".style", "no style 'shrt'; it has: detailed, short", id="style"),
        pytest.param("{name: caption, hints: [orc]}", ".hints", "no hint 'orc'; it takes: ocr, original", id="hint"),
        pytest.param("{name: caption, of: [ocr]}", ".of", "caption takes no of", id="labels of others"),
        pytest.param("{name: caption, style: short, variants: [0, 3]}", ".variants", "3 prompts, counted from 0"),
        pytest.param("{name: caption, variants: [-1]}", ".variants", "and -1 is none of them", id="negative variant"),
        pytest.param("{name: qa}", "", "qa needs questions (a list, for every image) or questions_from", id="qa"),
        pytest.param("{name: grounding}", "", "grounding needs queries", id="grounding"),
    ],
)
def test_entry_that_its_recipe_does_not_take_is_explained(recipe: str, path: str, message: str):
    found = problems(job_with(f"[{{name: ocr, id: text}}, {recipe}]"))

    assert list(found) == [f"recipes.1{path}"]
    assert message in found[f"recipes.1{path}"]


def test_mistake_in_one_recipe_hides_none_in_another():
    found = problems(job_with("[{name: qa}, {name: grounding, query: dog}, {name: ocr, seed: x}]"))

    assert list(found) == ["recipes.1.query", "recipes.2.seed", "recipes.0"]


def test_recipe_that_is_given_twice_is_reported_once():
    assert problems(job_with("[ocr, ocr]")) == {
        "recipes.1": "the recipe ocr is given twice: keep one, or give one of them another id"
    }


def test_file_and_a_built_in_recipe_of_the_same_name_need_two_ids(mine: Path):
    mine.write_text(MINE.replace("name: mine", "name: ocr"))

    assert list(problems(job_with(f"[ocr, {mine}]"))) == ["recipes.1"]
    assert len(read_job(job_with(f"[ocr, {{name: {mine}, id: mine}}]")).recipes) == 2


def test_recipe_need_not_be_listed_to_be_quoted_unless_it_needs_something_itself(mine: Path):
    assert read_job(job_with(f"[{{name: {mine}, hints: [ocr]}}]"))

    (message,) = problems(job_with(f"[{{name: {mine}, hints: [ocr, qa]}}]")).values()
    assert message.startswith("qa needs questions (a list, for every image) or questions_from")
    assert message.endswith("add qa to recipes with what it needs")
    assert read_job(job_with(f"[{{name: {mine}, hints: [ocr, qa]}}, {{name: qa, questions: [why]}}]"))


def test_recipe_that_is_quoted_and_nowhere_to_be_found_is_named(mine: Path):
    assert problems(job_with(f"[{{name: {mine}, hints: [gist]}}]")) == {
        "recipes.0.hints": "there is no recipe 'gist' to quote: add it to recipes, with its file"
    }
    assert read_job(job_with(f"[{{name: {mine}, hints: [gist]}}, {{name: caption, id: gist}}]"))


def test_every_mistake_of_a_recipe_file_is_told_with_its_place_in_the_job_and_in_the_file(mine: Path):
    mine.write_text(MINE.replace("about:", "abuot:").replace("table: captions", "table: caption"))
    found = problems(job_with(f"[ocr, {mine}]"))

    assert list(found) == ["recipes.1.about", "recipes.1.table", "recipes.1.abuot"]
    assert "did you mean 'about'?" in found["recipes.1.abuot"]
    assert all(message.endswith(f"(in {mine})") for message in found.values())
