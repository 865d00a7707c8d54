"""Nano is trained on exactly what the built-in recipes send."""

from model.nano.lessons import (
    CAPTION_PROMPTS,
    OCR_PROMPTS,
    caption_turn,
    grounding_turn,
    make_turns,
    ocr_turn,
    qa_turn,
)
from model.nano.scenes import Scene, render_scene
from model.tokenizer import DET, REF
from pipeline.recipes import load_recipe
from pipeline.recipes.boxes import parse_boxes
from schemas.recipe_specs import RecipeSpec
from tests.pipeline.asked import ask


def scene_with_text() -> Scene:
    return next(scene for scene in map(render_scene, range(100)) if scene.text and scene.objects)


def prompts(name, earlier=None, **values):
    """All that a recipe sends for one sample, whatever its first answer was."""
    return ask(RecipeSpec(name=name, **values), earlier=earlier, says="as it was taught")[1].prompts


def test_variants_are_those_of_the_recipes():
    assert tuple(next(iter(load_recipe("caption").file.last.styles.values())).prompts) == CAPTION_PROMPTS
    assert load_recipe("ocr").file.last.prompts == OCR_PROMPTS


def test_each_turn_asks_in_the_words_of_its_recipe():
    scene = scene_with_text()
    for variant in range(len(CAPTION_PROMPTS)):
        taught = caption_turn(scene, with_hint=False, variant=variant)
        assert prompts("caption", variants=(variant,)) == [taught.prompt]
    for variant in range(len(OCR_PROMPTS)):
        assert prompts("ocr", variants=(variant,)) == [ocr_turn(scene, variant=variant).prompt]
    assert prompts("qa", questions=("What is written?",)) == [qa_turn("What is written?", "").prompt]
    assert prompts("grounding", queries=("the sign",)) == [grounding_turn(scene, "the sign", []).prompt]


def test_a_hinted_caption_quotes_the_transcription_as_the_recipe_does():
    scene = scene_with_text()
    read = {"ocr": ask(RecipeSpec(name="ocr"), says=scene.text)[0]}
    taught = caption_turn(scene, with_hint=True, variant=2)
    assert prompts("caption", read, hints=("ocr",), variants=(2,)) == [taught.prompt]


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
