"""Nano is trained on exactly what the built-in recipes send."""

from model.nano.lessons import caption_turn, grounding_turn, make_turns, ocr_turn, qa_turn
from model.nano.scenes import Scene, render_scene
from model.tokenizer import DET, REF
from pipeline.recipes import BUILT_IN
from pipeline.recipes.boxes import parse_boxes
from schemas.recipe_specs import CaptionSpec, GroundingSpec, OcrSpec, QaSpec
from schemas.rows import Label
from tests.pipeline.rows import one_image_row


def scene_with_text() -> Scene:
    return next(scene for scene in map(render_scene, range(100)) if scene.text and scene.objects)


def prompts(spec, row=None, earlier=None):
    recipe = BUILT_IN[spec.name](spec, checkpoint_digest="nano")
    return [
        step.prompt
        for step in recipe.steps(
            row or one_image_row(sample_id="a", image_uri="a.png", version="1", recipes=(spec.name,)),
            earlier or {},
        )
    ]


def test_each_turn_asks_in_the_words_of_its_recipe():
    scene = scene_with_text()
    assert prompts(CaptionSpec()) == [caption_turn(scene, with_hint=False).prompt]
    assert prompts(OcrSpec()) == [ocr_turn(scene).prompt]
    assert prompts(QaSpec(questions=("What is written?",))) == [qa_turn("What is written?", "").prompt]
    assert prompts(GroundingSpec(queries=("the sign",))) == [grounding_turn(scene, "the sign", []).prompt]


def test_a_hinted_caption_quotes_the_transcription_as_the_recipe_does():
    scene = scene_with_text()
    read = Label(
        recipe="ocr",
        recipe_digest="d",
        table="ocr",
        item=0,
        prompt="",
        num_prompt_tokens=1,
        num_output_tokens=1,
        finish_reason="stop",
        mean_logprob=0.0,
        flags=(),
        values={"text": scene.text},
    )
    spec = CaptionSpec(hints=("ocr",))
    assert prompts(spec, earlier={"ocr": [read]}) == [caption_turn(scene, with_hint=True).prompt]


def test_what_nano_is_taught_to_answer_is_what_the_grounding_recipe_can_read():
    for seed in range(40):
        scene = render_scene(seed)
        for turn in make_turns(scene, num_questions=0, num_phrases=6):
            if turn.task != "grounding":
                continue
            assert turn.answer.startswith(REF)
            assert DET in turn.answer
            parsed = parse_boxes(
                turn.answer, default_label="", width_px=scene.image.width, height_px=scene.image.height
            )
            assert parsed.flags == ()
            assert len(parsed.boxes) == turn.answer.count("[") - 1
