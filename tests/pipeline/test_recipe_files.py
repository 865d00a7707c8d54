"""Recipe files: what is wrong with one is told before anything runs, and what counts in one is in its digest."""

import os
import pickle

import pytest

from pipeline.recipes import built_in_names, load_recipe, make_recipes
from schemas.job import JobError
from schemas.recipe_specs import RecipeSpec
from tests.pipeline.asked import ask, put_recipe

SMALL = "steps: [{prompts: [Describe it.]}]"


def problems(folder, text, **files) -> dict[str, str]:
    """By their path in the file; every message ends with the name of the file."""
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    path = put_recipe(folder, text)
    with pytest.raises(JobError) as caught:
        load_recipe(path)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    assert all(message.endswith(f" (in {path})") and "\n" not in message for message in found.values())
    return {place: message.removesuffix(f" (in {path})") for place, message in found.items()}


@pytest.mark.parametrize("name", built_in_names())
def test_built_in_recipe_is_called_as_its_file(name):
    loaded = load_recipe(name)
    assert (loaded.file.name, loaded.origin) == (name, "built in")
    assert loaded.text.startswith(f"name: {name}\n")


def test_file_of_the_user_is_taken_by_its_path_from_the_working_folder(tmp_path, monkeypatch):
    put_recipe(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe("mine.yaml")
    assert (loaded.file.name, loaded.origin) == ("mine", "mine.yaml")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("stpes: []\n" + SMALL, "stpes", "unknown key; did you mean 'steps'?"),
        ("table: caption\n" + SMALL, "table", "did you mean 'captions'?"),
        ("name: My Recipe\n" + SMALL, "name", "must hold lower case letters"),
        ("values: {langauge: en}\n" + SMALL, "values", "langauge is no column of a label table"),
        ("steps: []", "steps", "needs at least one entry"),
        ("steps: [{promts: [a]}]", "steps.0.promts", "did you mean 'prompts'?"),
        ("steps: [{name: a}]", "steps.0", "needs prompts (a list) or styles"),
        ("steps: [{prompts: [a], styles: {b: [c]}}]", "steps.0", "and not both"),
        (
            "steps: [{prompts: [a], each: question}]",
            "steps.0.each",
            "question is nothing to repeat a step for: questions, queries, turns, marks, labels",
        ),
        ("steps: [{prompts: [a], images: last}]", "steps.0.images", "got 'last'"),
        ("steps: [{prompts: [a], images: marked}]", "steps.0.images", "goes with each: marks"),
        ("steps: [{prompts: [a], each: marks}]", "steps.0.images", "goes with each: marks"),
        ("steps: [{prompts: [a], answer: choice}]", "steps.0.choices", "it needs them"),
        ("steps: [{prompts: [a], choices: [b]}]", "steps.0.choices", "answer: choice"),
        ("steps: [{prompts: [a], answer: boxes}]", "steps.0.box_label", "for example {query}"),
        ("steps: [{prompts: [a], default_hints: [ocr]}]", "steps.0", "ocr is not among the hints"),
        ("steps: [{prompts: ['Name {thing}']}]", "steps.0", "{thing} in 'Name {thing}' stands for nothing here"),
        ("steps: [{prompts: ['{question}']}]", "steps.0", "known are none"),
        ("steps: [{prompts: ['{count}']}]", "steps.0", "{count} in '{count}' stands for nothing"),
        ("steps: [{prompts: ['{ }']}]", "steps.0.prompts.0", "write {{ and }} for braces"),
        ("steps: [{prompts: ['{a!r}']}]", "steps.0.prompts.0", "write {{ and }} for braces"),
        ("steps: [{prompts: ['{']}]", "steps.0.prompts.0", "'{'"),
        ("steps: [{prompts: [a], retries: [{}]}]", "steps.0.retries.0", "changes nothing"),
        (
            "steps: [{prompts: [a], retries: [{other_prompt: false}]}]",
            "steps.0.retries.0",
            "changes nothing, and the same question has the same answer",
        ),
        ("steps: [{prompts: [a], retries: [{add: ' {b}'}]}]", "steps.0", "{b} in ' {b}' stands"),
        (
            "steps: [{prompts: [a], hints: {ocr: ' It reads {text}'}}]",
            "steps.0.hints.ocr",
            "a hint quotes what it is named after, once: {ocr}",
        ),
        ("steps: [{prompts: [a], hints: {ocr: b}}]", "steps.0.hints.ocr", "once: {ocr}"),
        ("steps: [{prompts: [a], hints: {ocr: '{ocr} {ocr}'}}]", "steps.0.hints.ocr", "once: {ocr}"),
        ("steps: [{prompts: [a]}, {prompts: [b]}]", "steps.1.name", "the name is taken"),
        ("steps: [{name: a, prompts: [a]}, {prompts: [b], each: a}]", "steps.1.each", "a is nothing to repeat"),
        (
            "steps: [{name: ocr, prompts: [a]}, {prompts: [b], hints: {ocr: '{ocr}'}}]",
            "steps.1.hints.ocr",
            "ocr is the name of a step already",
        ),
        ("steps: [{prompts: [a], gates: {empti: {}}}]", "steps.0.gates.empti", "did you mean 'empty'?"),
        ("steps: [{prompts: [a], gates: {empty: {then: drop}}}]", "steps.0.gates.empty.then", "got 'drop'"),
        ("parse: mine.py\n" + SMALL, "parse", "must have the form FILE.py:FUNCTION, got 'mine.py'"),
    ],
)
def test_mistake_is_told_with_its_place(tmp_path, text, path, message):
    found = problems(tmp_path, text)
    assert list(found) == [path]
    assert message in found[path]


def test_all_mistakes_are_told_at_once(tmp_path):
    text = "table: caption\nsteps: [{prompts: [a], retries: [{}]}, {promts: [b]}]"
    assert list(problems(tmp_path, text)) == ["table", "steps.0.retries.0", "steps.1.promts"]


def test_key_that_is_given_twice_is_a_mistake(tmp_path):
    assert list(problems(tmp_path, f"{SMALL}\nmin_images: 1\nmin_images: 2")) == ["min_images"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def columns(text, asked:\n", "mine.py cannot be run: SyntaxError"),
        ("import nothing_of_this_name\n", "mine.py cannot be run: ModuleNotFoundError"),
        ("1 / 0\n", "mine.py cannot be run: ZeroDivisionError: division by zero"),
        ("def colums(text, asked): ...\n", "mine.py has no function columns"),
        ("columns = 3\n", "mine.py has no function columns"),
    ],
    ids=["syntax", "import", "error", "misspelt", "no function"],
)
def test_python_file_that_is_broken_is_told_in_one_line(tmp_path, source, message):
    found = problems(tmp_path, f"parse: mine.py:columns\n{SMALL}", mine=source)
    assert found["parse"].startswith(message)


def test_python_file_that_is_not_there_is_told(tmp_path):
    (message,) = problems(tmp_path, f"parse: mine.py:columns\n{SMALL}").values()
    assert message == f"{tmp_path}/mine.py: there is no such Python file"


FUNCTION = """
import re

def columns(text, asked):
    return {"caption": re.sub("[aeiou]", "", text), "style": f"{asked['style']} {asked['width_px']}", "flags": ["mine"]}
"""


def test_function_of_the_user_makes_the_columns_even_where_its_file_is_not(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    spec = RecipeSpec(name=put_recipe(tmp_path, f"parse: mine.py:columns\n{SMALL}"))
    (recipe,) = make_recipes([spec], checkpoint_digest="c")
    os.remove(tmp_path / "mine.py")
    there = pickle.loads(pickle.dumps(recipe))
    assert there.loaded.user_function()("aha", {"style": "plain", "width_px": 9})["caption"] == "h"

    (tmp_path / "mine.py").write_text(FUNCTION)
    (label,) = ask(spec, says="seen")[0]
    assert label.values == {"caption": "sn", "style": "plain 1998"}
    assert label.flags == ("mine",)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("text", "the recipe's function gave str: it must give a mapping of columns"),
        ("{'captoin': text}", "the recipe's function gave captoin, but the table captions has caption, style"),
    ],
)
def test_function_that_gives_something_else_fails_the_recipe_and_says_so(tmp_path, returned, message):
    (tmp_path / "mine.py").write_text(f"def columns(text, asked): return {returned}\n")
    spec = RecipeSpec(name=put_recipe(tmp_path, f"parse: mine.py:columns\n{SMALL}"))
    with pytest.raises(ValueError, match=message):
        ask(spec)


PAIR = """
steps:
  - prompts: [Describe it.]
    hints: {%s: " {%s}"}
"""


def digests(folder, **specs):
    """Of `a`, of `b`, which quotes it, and of `c`, which does not."""
    made = [RecipeSpec(name=str(folder / f"{name}.yaml"), **specs.get(name, {})) for name in "abc"]
    return {one.name: one.digest for one in make_recipes(made, checkpoint_digest="c")}


@pytest.fixture
def three(tmp_path):
    (tmp_path / "a.py").write_text(FUNCTION)
    put_recipe(tmp_path, f"parse: a.py:columns\n{SMALL}", "a")
    put_recipe(tmp_path, PAIR % ("a", "a") + "    default_hints: [a]", "b")
    put_recipe(tmp_path, SMALL, "c")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "before", "after", "changed"),
    [
        ("a.yaml", "name: a", "# Mine.\nname: a  # as the file", set()),
        ("a.yaml", "about: For a test.", "about: For another test.", set()),
        ("a.yaml", "steps: [{prompts: [Describe it.]}]", "steps:\n  - prompts:\n      - Describe it.", set()),
        ("a.yaml", "[Describe it.]", "[Describe it.], max_boxes: 16", set()),
        ("a.yaml", "Describe it.", "Describe it!", {"a", "b"}),
        ("a.yaml", "[Describe it.]", '["Describe it.", "What is it?"]', {"a", "b"}),
        ("a.yaml", "[Describe it.]", "[Describe it.], generation: {top_p: 0.9}", {"a", "b"}),
        ("a.yaml", "[Describe it.]", "[Describe it.], gates: {empty: {then: retry}}", {"a", "b"}),
        ("a.yaml", "[Describe it.]", "[Describe it.], retries: [{temperature: 1}]", {"a", "b"}),
        ("a.py", "aeiou", "aeiouy", {"a", "b"}),
        ("b.yaml", "Describe it.", "Describe it!", {"b"}),
        ("c.yaml", "Describe it.", "Describe it!", {"c"}),
    ],
    ids=[
        *("comment", "about", "spelling", "default", "prompt", "another prompt", "parameter", "gate", "retry"),
        *("function", "prompt of who quotes", "prompt of who is alone"),
    ],
)
def test_what_counts_in_a_file_changes_its_digest_and_that_of_those_who_quote_it(three, file, before, after, changed):
    earlier, path = digests(three), three / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    now = digests(three)
    assert {name for name in now if now[name] != earlier[name]} == changed


def test_digest_does_not_depend_on_where_the_file_lies(three, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in three.iterdir():
        path.rename(elsewhere / path.name)
    before = digests(elsewhere)
    for path in elsewhere.iterdir():
        path.rename(three / path.name)
    assert digests(three) == before


def test_recipe_that_is_not_quoted_does_not_count(three):
    with_hint, without = digests(three), digests(three, b={"hints": ()})
    assert {name for name in with_hint if with_hint[name] != without[name]} == {"b"}
    (three / "a.py").write_text("def columns(text, asked): return {}\n")
    assert digests(three, b={"hints": ()})["b"] == without["b"]


def test_one_recipe_with_two_ids_has_two_digests(three):
    twice = [RecipeSpec(name=str(three / "c.yaml"), id=id_) for id_ in ("x", "y")]
    made = make_recipes(twice, checkpoint_digest="c")
    assert [one.name for one in made] == ["x", "y"]
    assert len({one.digest for one in made}) == 2, "random streams follow from the id"


def test_recipes_that_quote_each_other_in_a_circle_are_refused(tmp_path):
    for name, other in ("ab", "ba"):
        put_recipe(tmp_path, PAIR % (other, other) + f"    default_hints: [{other}]", name)
    specs = [RecipeSpec(name=str(tmp_path / f"{name}.yaml")) for name in "ab"]
    with pytest.raises(JobError, match="the recipes a, b need each other's labels in a circle"):
        make_recipes(specs, checkpoint_digest="c")
    assert len(make_recipes([specs[0], specs[1].model_copy(update={"hints": ()})], checkpoint_digest="c")) == 2
