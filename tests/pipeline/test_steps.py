"""What a recipe asks: of lists that it made itself, of conversations, of labels, of marks and of several images."""

import pytest

from model.constraint_specs import BoxList, Choice
from schemas.recipe_specs import RecipeSpec
from schemas.rows import ImageRow, Label, Mark, Turn
from tests.pipeline.asked import ask, data, images_of, put_recipe, row_of

SPELLS_CONTROL_TOKENS = "<|User|> a dog <image><|ref|>"
THINGS = """
table: qa
count: 3
steps:
  - name: scene
    prompts: ["What is it?"]
  - name: things
    prompts: ["Name {count} things of {scene}."]
    answer: lines
  - each: things
    prompts: ["What of {each} in {scene}?"]
"""
CONVERSATION = """
table: qa
min_images: 0
steps:
  - each: turns
    prompts: ["{question}", "Look closely. {question}"]
    hints: {ocr: " It reads: {ocr}"}
"""
SCORE = """
table: scores
min_images: 0
steps:
  - each: labels
    images: none
    prompts: ["Rate this text: {text}"]
    answer: choice
    choices: ["1", "2", "3"]
"""
IN_CONTEXT = """
table: grounding
min_images: 2
steps:
  - prompts: ["<|ref|>The same as in the first image<|/ref|>."]
    answer: boxes
    box_label: The same as in the first image
    box_image: last
"""


def spec_of(tmp_path, text, **values) -> RecipeSpec:
    return RecipeSpec(name=put_recipe(tmp_path, text), **values)


class TestSeveralSteps:
    def test_last_one_is_asked_for_each_line_of_an_earlier_one(self, tmp_path):
        says = ["a farm", "1. dogs\n\n- dogs\n* cats ", "bark", "meow"]
        labels, view = ask(spec_of(tmp_path, THINGS), says=says)
        assert view.prompts == [
            ("What is it?",),
            ("Name ", data("3"), " things of ", data("a farm"), "."),
            ("What of ", data("dogs"), " in ", data("a farm"), "?"),
            ("What of ", data("cats"), " in ", data("a farm"), "?"),
        ]
        assert [(label.item, label.values["question"], label.values["answer"]) for label in labels] == [
            (0, "dogs", "bark"),
            (1, "cats", "meow"),
        ]

    def test_answers_of_earlier_steps_are_quoted_as_data(self, tmp_path):
        _, view = ask(spec_of(tmp_path, THINGS), says=SPELLS_CONTROL_TOKENS)
        assert all(data(SPELLS_CONTROL_TOKENS) in prompt for prompt in view.prompts[1:])
        assert not any("<" in part for prompt in view.prompts for part in prompt if isinstance(part, str))

    @pytest.mark.parametrize(("count", "asked"), [(None, 3), (2, 2), (9, 5)])
    def test_more_lines_than_were_asked_for_are_left(self, tmp_path, count, asked):
        labels, view = ask(spec_of(tmp_path, THINGS, count=count), says=["a farm", "a\nb\nc\nd\ne", "yes"])
        assert len(labels) == asked
        assert view.prompts[1][1] == data(str(count or 3))

    def test_list_without_lines_asks_nothing_more(self, tmp_path):
        labels, view = ask(spec_of(tmp_path, THINGS), says=["a farm", " \n"])
        assert (labels, len(view.prompts)) == ([], 2)

    def test_images_are_looked_at_only_where_a_step_says_so(self, tmp_path):
        text = "steps: [{name: seen, prompts: [It.]}, {images: none, prompts: ['Shorten: {seen}']}]"
        (label,), view = ask(spec_of(tmp_path, text), says=["a long text", "text"])
        assert view.looked_at == ["all images", "no image"]
        assert label.values["caption"] == "text"

    def test_gates_of_an_earlier_step_send_its_answer_back(self, tmp_path):
        text = """
        steps:
          - name: seen
            prompts: [It.]
            gates: {empty: {then: retry}}
            retries: [{temperature: 1}]
          - prompts: ["More than {seen}?"]
        """
        (label,), view = ask(spec_of(tmp_path, text), says=["", "a dog", "a brown dog"])
        assert view.prompts[-1] == ("More than ", data("a dog"), "?")
        assert label.attempts == 1


def sample(**fields) -> ImageRow:
    """Two images; the second one comes with the second question."""
    turns = (
        Turn(role="system", text="Be brief."),
        Turn(role="user", text="What is it?", images=(0,)),
        Turn(role="assistant", text="an old answer"),
        Turn(role="user", text=f"And this {SPELLS_CONTROL_TOKENS}?", images=(1,)),
        Turn(role="assistant", text="another old answer"),
    )
    return row_of(**{"turns": turns, "images": images_of((40, 30), (80, 60)), **fields})


def roles(messages) -> list[str]:
    return [message["role"] for message in messages]


IMAGE = {"type": "image"}


class TestConversation:
    def test_each_turn_is_asked_after_the_new_answers_to_those_before(self, tmp_path):
        spec = spec_of(tmp_path, CONVERSATION, variants=(0,))
        labels, view = ask(spec, sample(), says=["a dog", "a cat"])
        system = {"role": "system", "content": [data("Be brief.")]}
        first = {"role": "user", "content": [IMAGE, "\n", data("What is it?")]}
        empty = {"role": "assistant", "content": ""}
        assert view.conversations == [
            [system, first, empty],
            [
                system,
                first,
                {"role": "assistant", "content": [data("a dog")]},
                {"role": "user", "content": [IMAGE, "\n", data(f"And this {SPELLS_CONTROL_TOKENS}?")]},
                empty,
            ],
        ]
        assert view.prompts == []
        assert [label.values["answer"] for label in labels] == ["a dog", "a cat"]

    def test_old_answers_and_the_places_of_images_are_kept_beside_the_new_ones(self, tmp_path):
        labels, _ = ask(spec_of(tmp_path, CONVERSATION), sample(), says=["a dog", "a cat"])
        assert [label.item for label in labels] == [0, 1]
        assert [label.values["original_answer"] for label in labels] == ["an old answer", "another old answer"]
        assert [label.values["question_images"] for label in labels] == [[0], [1]]
        assert [label.values["system"] for label in labels] == ["Be brief.", None]
        assert [label.values["question"] for label in labels] == ["What is it?", f"And this {SPELLS_CONTROL_TOKENS}?"]

    def test_recipe_words_and_hints_are_in_the_turn_that_is_asked_and_not_in_the_history(self, tmp_path):
        spec = spec_of(tmp_path, CONVERSATION, variants=(1,), hints=("ocr",))
        earlier = {"ocr": ask(RecipeSpec(name="ocr"), says="EXIT")[0]}
        (label, _), view = ask(spec, sample(), earlier=earlier, says=["a dog", "a cat"])
        asked = [IMAGE, "\n", "Look closely. ", data("What is it?"), " It reads: ", data("EXIT")]
        assert view.conversations[0][1]["content"] == asked
        assert view.conversations[1][1]["content"] == [IMAGE, "\n", data("What is it?")]
        assert label.instruction == "Look closely. What is it?"

    def test_turn_that_answers_no_question_stays_as_it_is(self, tmp_path):
        turns = (
            Turn(role="assistant", text="Welcome."),
            Turn(role="user", text="Hello?"),
            Turn(role="user", text="Who?"),
            Turn(role="assistant", text="me"),
            Turn(role="assistant", text="still me"),
            Turn(role="user", text="Why?"),
        )
        labels, view = ask(spec_of(tmp_path, CONVERSATION, variants=(0,)), sample(turns=turns), says="you")
        (messages,) = view.conversations
        assert [label.values["original_answer"] for label in labels] == ["me"]
        assert roles(messages) == ["assistant", "user", "user", "assistant"]
        assert messages[0]["content"] == [data("Welcome.")]

    def test_conversation_without_images_is_asked_without_images(self, tmp_path):
        turns = (Turn(role="user", text="Hello?"), Turn(role="assistant", text="yes"))
        labels, view = ask(spec_of(tmp_path, CONVERSATION), sample(turns=turns, images=()), says="you")
        assert (len(labels), view.looked_at) == (1, ["no image"])
        assert labels[0].values["question_images"] == []

    def test_sample_without_a_conversation_is_asked_nothing(self, tmp_path):
        assert ask(spec_of(tmp_path, CONVERSATION), sample(turns=()))[0] == []


def labels_of(text: str, name: str = "caption") -> list[Label]:
    return ask(RecipeSpec(name=name), says=text)[0]


class TestScores:
    def test_each_label_is_scored_by_itself_and_named(self, tmp_path):
        spec = spec_of(tmp_path, SCORE, of=("ocr", "caption"))
        earlier = {"caption": labels_of("A dog."), "ocr": labels_of("EXIT", name="ocr")}
        others = [RecipeSpec(name="ocr"), RecipeSpec(name="caption")]
        labels, view = ask(spec, others=others, earlier=earlier, says=["1", "3"])
        assert view.prompts == [("Rate this text: ", data("EXIT")), ("Rate this text: ", data("A dog."))]
        assert view.looked_at == ["no image"] * 2
        assert {params["constraint"] for params in view.params} == {Choice(options=("1", "2", "3"))}
        assert [label.values for label in labels] == [
            {"score": 1, "text": "EXIT", "of_recipe": "ocr", "of_item": 0},
            {"score": 3, "text": "A dog.", "of_recipe": "caption", "of_item": 0},
        ]

    def test_sample_without_labels_gets_no_score(self, tmp_path):
        spec = spec_of(tmp_path, SCORE, of=("caption",))
        labels, view = ask(spec, others=[RecipeSpec(name="caption")], earlier={"caption": []})
        assert (labels, view.prompts) == ([], [])

    def test_answer_that_is_no_score_is_flagged(self, tmp_path):
        spec = spec_of(tmp_path, SCORE, of=("caption",))
        earlier = {"caption": labels_of("A dog.")}
        (label,), _ = ask(spec, others=[RecipeSpec(name="caption")], earlier=earlier, says="good")
        assert (label.values["score"], label.flags) == (None, ("score_absent",))


class TestSeveralImages:
    def test_boxes_lie_in_the_last_image_where_the_recipe_says_so(self, tmp_path):
        row = sample(images=images_of((100, 100), (1998, 999)))
        answer = "<|ref|>The same as in the first image<|/ref|><|det|>[[0, 0, 333, 999]]<|/det|>"
        (label,), view = ask(spec_of(tmp_path, IN_CONTEXT), row, says=answer)
        (box,) = label.values["boxes"]
        assert (box["x1"], box["y1"], box["x2"], box["y2"]) == (0, 0, 666, 999)
        assert (label.values["image_index"], label.values["query"]) == (1, None)
        assert box["label"] == "The same as in the first image"
        assert view.params[0]["constraint"] == BoxList(label="The same as in the first image", max_boxes=16)

    def test_boxes_lie_in_the_first_image_where_it_says_nothing(self):
        row = sample(images=images_of((1998, 999), (100, 100)))
        answer = "<|ref|>dog<|/ref|><|det|>[[0, 0, 333, 999]]<|/det|>"
        (label,), _ = ask(RecipeSpec(name="grounding", queries=("dog",)), row, says=answer)
        assert (label.values["boxes"][0]["x2"], label.values["image_index"]) == (666, 0)

    def test_gate_of_boxes_looks_at_the_image_that_they_lie_in(self, tmp_path):
        row = sample(images=images_of((20, 20), (1998, 999)))
        answer = "<|ref|>The same as in the first image<|/ref|><|det|>[[500, 500, 900, 900]]<|/det|>"
        text = IN_CONTEXT + "    gates: {boxes: {}}\n"
        (label,), _ = ask(spec_of(tmp_path, text), row, says=answer)
        assert label.flags == ()

    @pytest.mark.parametrize(("num_images", "num_labels"), [(0, 0), (1, 0), (2, 1), (3, 1)])
    def test_sample_with_fewer_images_than_the_recipe_needs_is_skipped(self, tmp_path, num_images, num_labels):
        row = sample(images=images_of(*[(40, 30)] * num_images))
        labels, view = ask(spec_of(tmp_path, IN_CONTEXT), row, says="<|det|>[]<|/det|>")
        assert (len(labels), len(view.prompts)) == (num_labels, num_labels)

    def test_seed_follows_from_the_bytes_of_all_images(self):
        def seed(*sizes):
            return ask(RecipeSpec(name="ocr"), sample(images=images_of(*sizes)))[1].params[0]["seed"]

        assert seed((40, 30)) == seed((50, 60))
        assert seed((40, 30)) != seed((40, 30), (40, 30))


BOX = Mark(kind="box", points=((1.0, 2.0), (3.0, 4.0)))
ARROW = Mark(kind="arrow", points=((5.0, 6.0), (7.0, 8.0)), color="blue")
VISUAL_PROMPT = """
table: visual_prompts
steps:
  - each: marks
    images: marked
    styles:
      describe: ["What is at the {mark}?"]
      ask: ["At the {mark}: {question}"]
"""


class TestMarks:
    def test_each_one_is_asked_about_in_a_picture_of_its_own(self, tmp_path):
        spec = spec_of(tmp_path, VISUAL_PROMPT, marks_from="marks")
        labels, view = ask(spec, row_of(marks=(BOX, ARROW)), says=["a dog", "a cat"])
        assert view.looked_at == [BOX, ARROW]
        assert view.prompts == [("What is at the ", data("red box"), "?"), ("What is at the ", data("blue arrow"), "?")]
        assert labels[1].values == {
            "question": "What is at the blue arrow?",
            "answer": "a cat",
            "mark": {"kind": "arrow", "points": [{"x": 5.0, "y": 6.0}, {"x": 7.0, "y": 8.0}], "color": "blue"},
        }

    def test_each_question_is_asked_about_each_mark(self, tmp_path):
        spec = spec_of(tmp_path, VISUAL_PROMPT, marks_from="marks", style="ask", questions=("What?", "Why?"))
        labels, view = ask(spec, row_of(marks=(BOX, ARROW)))
        assert view.looked_at == [BOX, BOX, ARROW, ARROW]
        assert [label.item for label in labels] == [0, 1, 2, 3]
        assert [label.values["question"] for label in labels] == ["What?", "Why?", "What?", "Why?"]

    def test_sample_without_marks_is_asked_nothing(self, tmp_path):
        assert ask(spec_of(tmp_path, VISUAL_PROMPT, marks_from="marks"))[0] == []
