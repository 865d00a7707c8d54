"""Answers that a gate sends back: how often they are asked for again, how, and which of them is kept."""

import json

import pytest

from model.constraint_specs import BoxList, Choice
from pipeline.quality import Finding
from pipeline.recipes import decode
from pipeline.recipes.decode import RejectedAnswerError
from schemas.errors import ErrorKind
from schemas.recipe_specs import RecipeSpec
from tests.pipeline.asked import ask, data, put_recipe, row_of
from tests.pipeline.counting import counting

LADDER = """
steps:
  - prompts: [First., Second., Third.]
    generation: {temperature: 0, top_p: 0.9}
    gates: {empty: {then: %s}}
    retries:
      - {temperature: 0.5, other_prompt: true}
      - {top_p: 0.5, add: " In short."}
      - {temperature: 1, other_prompt: true, repetition_penalty: 1.2}
"""


@pytest.fixture
def judged(monkeypatch):
    """A gate that finds in an answer what it spells, e.g. "bad:retry worse:reject fine"; gives what it was shown."""
    shown = []

    def judge(answer, gates):
        shown.append(answer)
        pairs = [word.split(":") for word in answer.text.split() if ":" in word]
        return tuple(Finding(gate=flag, flag=flag, then=then, detail=f"it is {flag}") for flag, then in pairs)

    monkeypatch.setattr(decode, "judge", judge)
    return shown


@pytest.fixture
def ladder(tmp_path):
    return RecipeSpec(name=put_recipe(tmp_path, LADDER % "retry"))


def first_variant(spec):
    return ask(spec)[0][0].variant


def test_answer_that_passes_is_asked_for_once(judged, ladder):
    (label,), view = ask(ladder, says="fine")
    assert (len(view.prompts), label.attempts, label.flags) == (1, 1, ())


def test_answer_that_is_only_flagged_is_kept_as_it_is(judged, ladder):
    (label,), view = ask(ladder, says="odd:flag")
    assert (len(view.prompts), label.attempts, label.flags) == (1, 1, ("odd",))


def test_answer_that_is_sent_back_is_asked_for_until_it_passes(judged, ladder):
    (label,), view = ask(ladder, says=["bad:retry", "bad:retry", "fine", "never asked"])
    assert (len(view.prompts), label.attempts) == (3, 3)
    assert (label.values["caption"], label.flags) == ("fine", ())


def test_number_of_attempts_is_bounded_and_the_last_flags_stay(judged, ladder):
    (label,), view = ask(ladder, says="bad:retry")
    assert (len(view.prompts), label.attempts, label.flags) == (4, 1, ("bad",))


def test_each_attempt_has_its_own_words_and_parameters_and_a_seed(judged, ladder):
    start = first_variant(ladder)
    words = ["First.", "Second.", "Third."][start:] + ["First.", "Second.", "Third."][:start]
    _, view = ask(ladder, says="bad:retry")
    assert view.prompts == [(words[0],), (words[1],), (words[1], " In short."), (words[2],)]
    decoded = [(params["temperature"], params["top_p"], params["repetition_penalty"]) for params in view.params]
    assert decoded == [(0, 0.9, 1), (0.5, 0.9, 1), (0, 0.5, 1), (1, 0.9, 1.2)]
    assert len({params["seed"] for params in view.params}) == 4


def test_settings_of_the_job_stand_under_those_of_a_retry(judged, ladder):
    spec = ladder.model_copy(update={"temperature": 0.3, "variants": (2,)})
    _, view = ask(spec, says="bad:retry")
    assert [params["temperature"] for params in view.params] == [0.3, 0.5, 0.3, 1]
    assert {prompt[0] for prompt in view.prompts} == {"Third."}, "there is no other variant to turn to"


@pytest.mark.parametrize(
    ("answers", "kept", "attempts"),
    [
        (["a:retry b:retry", "a:retry", "a:retry c:flag", "a:retry b:retry"], "a:retry", 2),
        (["a:retry c:flag", "a:retry", "a:retry", "a:retry"], "a:retry", 2),
        (["a:retry first", "a:retry second", "a:retry third", "a:retry fourth"], "a:retry first", 1),
        (["a:retry", "b:retry c:flag", "fine but:flag", "fine"], "fine but:flag", 3),
    ],
)
def test_best_attempt_is_kept_with_what_made_it(judged, ladder, answers, kept, attempts):
    (label,), view = ask(ladder, says=answers)
    assert (label.values["caption"], label.attempts) == (kept, attempts)
    assert label.prompt == "".join(view.prompts[attempts - 1])
    told, params = json.loads(label.parameters), view.params[attempts - 1]
    assert {name: told[name] for name in ("seed", "temperature")} == {
        name: params[name] for name in ("seed", "temperature")
    }


def test_answer_that_is_rejected_in_all_attempts_is_no_label(judged, ladder):
    with pytest.raises(RejectedAnswerError) as caught:
        ask(ladder, says="bad:reject " + "x" * 200)
    assert caught.value.error.kind is ErrorKind.ANSWER_REJECTED
    assert caught.value.error.kind.permanent
    assert caught.value.error.message == f"bad: it is bad; the answer begins {'bad:reject ' + 'x' * 69!r}"


def test_attempt_that_is_merely_sent_back_is_better_than_a_rejected_one(judged, ladder):
    (label,), _ = ask(ladder, says=["a:reject", "a:retry b:retry c:retry", "a:reject b:flag", "a:reject"])
    assert (label.attempts, label.flags) == (2, ("a", "b", "c"))


def test_gate_sees_the_answer_and_what_it_was_asked(judged):
    row = row_of(questions=("Why?",))
    quoted = {"ocr": ask(RecipeSpec(name="ocr"), says="EXIT")[0]}
    spec = RecipeSpec(name="qa", questions_from="q", hints=("ocr",))
    ask(spec, row, says=" So. ", earlier=quoted, mean_logprob=-2.0, num_output_tokens=4)
    seen = judged[-1]
    assert (seen.text, seen.question, seen.instruction, seen.ocr_text) == ("So.", "Why?", "Why?", "EXIT")
    assert (seen.mean_logprob, seen.num_output_tokens, seen.finish_reason) == (-2.0, 4, "stop")
    assert (seen.width_px, seen.height_px, seen.boxes) == (1998, 999, None)


def test_gate_sees_the_boxes_and_what_the_parser_says_of_them(judged):
    answer = "<|ref|>dog<|/ref|><|det|>[[0, 0, 333, 999], [5, 5, 1, 1]]<|/det|>"
    ask(RecipeSpec(name="grounding", queries=("dog",)), says=answer)
    (box,) = judged[-1].boxes
    assert (box.x2, box.y2, judged[-1].parse_flags) == (666, 999, ("boxes_out_of_range",))


def test_only_the_question_whose_answer_was_sent_back_is_asked_again(judged):
    spec = RecipeSpec(name="qa", questions=("How?", "Why?"))
    labels, view = ask(spec, says=["fine", "bad:retry", "fine now"])
    assert [label.attempts for label in labels] == [1, 2]
    assert [prompt[0] for prompt in view.prompts] == [data("How?"), data("Why?"), data("Why?")]
    assert view.prompts[2][1:] == ("\nAnswer in the language of the question.",)


def test_form_may_be_imposed_on_a_retry_alone(tmp_path, judged):
    text = """
    table: scores
    steps:
      - each: labels
        images: none
        prompts: ["Rate it: {text}"]
        answer: choice
        choices: ["1", "2"]
        constrain: false
        retries: [{constrain: true}]
    """
    spec = RecipeSpec(name=put_recipe(tmp_path, text), of=("caption",))
    caption = RecipeSpec(name="caption")
    earlier = {"caption": ask(caption, says="A dog.")[0]}
    (label,), view = ask(spec, others=[caption], earlier=earlier, says=["well:retry", "2"])
    assert [params["constraint"] for params in view.params] == [None, Choice(options=("1", "2"))]
    assert (label.values["score"], json.loads(label.parameters)["constrained"]) == (2, True)


def test_boxes_are_bound_to_their_form_in_every_attempt(tmp_path, judged):
    text = """
    table: grounding
    steps:
      - each: queries
        prompts: ["{query}"]
        answer: boxes
        box_label: "{query}"
        retries: [{temperature: 1}]
    """
    spec = RecipeSpec(name=put_recipe(tmp_path, text), queries=("dog",))
    _, view = ask(spec, says="bad:retry")
    assert [params["constraint"] for params in view.params] == [BoxList(label="dog", max_boxes=16)] * 2


def test_real_gate_sends_back_and_a_later_answer_passes(ladder):
    (label,), view = ask(ladder, says=["...", " \n", "A dog."])
    assert (len(view.prompts), label.attempts, label.values["caption"], label.flags) == (3, 3, "A dog.", ())


def test_real_gate_rejects(tmp_path):
    with pytest.raises(RejectedAnswerError, match="empty: "):
        ask(RecipeSpec(name=put_recipe(tmp_path, LADDER % "reject")), says="")


def test_answer_in_another_language_than_its_question_is_flagged_and_decoded_again():
    spec = RecipeSpec(name="qa", questions=("图中的狗在做什么,它是什么颜色的?",))
    english = "The dog is brown and it runs over a meadow with a ball."
    chinese = "这只狗是棕色的,它叼着球在草地上奔跑。"
    (label,), view = ask(spec, says=[english, chinese])
    assert (label.values["answer"], label.attempts, label.flags) == (chinese, 2, ())
    assert view.prompts[1][-1] == "\nAnswer in the language of the question."
    (label,), _ = ask(spec, says=english)
    assert "wrong_language" in label.flags


def test_answer_sent_back_is_counted_for_the_first_gate_that_does_not_let_it_pass(judged, ladder, monkeypatch):
    told = counting(monkeypatch, decode)
    ask(ladder, says=["odd:flag bad:retry worse:reject", "worse:reject", "odd:flag"])
    assert told.of("redecodes") == {("mine", "bad"): 1, ("mine", "worse"): 1}
    assert told.of("answers") == {("mine",): 3}


def test_last_answer_of_the_ladder_is_not_sent_back_by_anything(judged, ladder, monkeypatch):
    told = counting(monkeypatch, decode)
    ask(ladder, says="bad:retry")
    assert told.of("redecodes") == {("mine", "bad"): 3}
    assert told.of("answers") == {("mine",): 4}
