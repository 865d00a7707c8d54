"""Blocks of the stages, and what the metrics of a run count of them."""

from model.engine_stats import EngineStats
from pipeline import metric_names as names
from pipeline.increments import of_engine, of_fetched, of_labelled, of_receipt, of_stage, zeros_of_labels
from pipeline.recipes import make_recipes
from schemas.recipe_specs import RecipeSpec
from schemas.rows import Label, to_columns
from tests.pipeline.asked import row_of
from tests.pipeline.counting import summed
from tests.pipeline.outputs import BUSY, MISSING


def label(recipe: str, *, num_prompt_tokens: int, num_output_tokens: int) -> Label:
    return Label(
        recipe=recipe,
        recipe_digest="d",
        table="ocr",
        item=0,
        prompt="",
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        finish_reason="stop",
        mean_logprob=0.0,
    )


def test_labels_and_their_tokens_are_counted_by_recipe():
    rows = [
        row_of("a", labels=(label("ocr", num_prompt_tokens=100, num_output_tokens=7),)),
        row_of(
            "b",
            labels=(
                label("ocr", num_prompt_tokens=200, num_output_tokens=1),
                label("qa", num_prompt_tokens=10, num_output_tokens=2),
                label("qa", num_prompt_tokens=10, num_output_tokens=3),
            ),
        ),
    ]
    assert summed(of_labelled(to_columns(rows))) == {
        ("labels", "ocr"): 2,
        ("labels", "qa"): 2,
        ("prompt_tokens", "ocr"): 300,
        ("prompt_tokens", "qa"): 20,
        ("output_tokens", "ocr"): 8,
        ("output_tokens", "qa"): 5,
    }


def test_image_that_failed_counts_once_for_each_of_its_recipes():
    rows = [
        row_of("a", recipes=("ocr", "qa"), error=MISSING),
        row_of("b", recipes=("ocr", "qa"), recipe_errors=(("qa", BUSY),)),
        row_of("c", recipes=("ocr",), recipe_errors=(("ocr", MISSING),)),
    ]
    assert summed(of_labelled(to_columns(rows))) == {
        ("quarantined", "ocr", "missing"): 2,
        ("quarantined", "qa", "missing"): 1,
        ("quarantined", "qa", "engine_error"): 1,
    }


def test_committed_image_is_either_labelled_or_quarantined():
    receipt = {"num_images": 16, "num_quarantined_images": 3, "num_labels": 40}
    assert summed(of_receipt(receipt)) == {("images", "labelled"): 13, ("images", "quarantined"): 3}


def test_bytes_of_all_images_of_all_samples_are_counted():
    assert summed(of_fetched({"encoded": [[b"12345", b"678"], [], [b"9"]]})) == {("fetched_bytes",): 9}


def test_time_of_a_block_is_counted_for_its_stage():
    assert summed(of_stage("tile", 1.5)) == {("stage_seconds", "tile"): 1.5, ("stage_blocks", "tile"): 1}


def test_engine_counts_what_it_did_since_it_last_said_so():
    before = EngineStats(num_steps=10, num_running_sum=20, num_sequence_slots_sum=40, expert_loads=((6, 2), (4, 4)))
    now = EngineStats(num_steps=15, num_running_sum=40, num_sequence_slots_sum=60, expert_loads=((6, 12), (9, 9)))
    assert summed(of_engine(now, before)) == {
        ("engine_steps",): 5,
        ("engine_running_sequences",): 20,
        ("engine_sequence_slots",): 20,
        ("engine_expert_tokens",): 20,
        ("engine_expert_peak_tokens",): 2 * (12 - 6) + 2 * (9 - 4),
    }


def test_engine_that_has_not_said_anything_yet_counts_all_of_it():
    assert summed(of_engine(EngineStats(num_preemptions=2, num_shared_tokens=7), None)) == {
        ("engine_preemptions",): 2,
        ("engine_shared_tokens",): 7,
    }


def test_engine_started_anew_takes_nothing_back():
    assert summed(of_engine(EngineStats(num_tiles=3), EngineStats(num_tiles=90))) == {}


def test_label_stage_begins_all_that_it_may_count_at_zero_except_kinds_of_errors(tmp_path):
    specs = [RecipeSpec(name="caption", hints=["ocr"])]  # ocr runs for it and is not written
    zeros = zeros_of_labels(make_recipes(specs, checkpoint_digest="c"))
    assert {zero.value for zero in zeros} == {0}
    begun = {(zero.metric, *zero.tags.values()) for zero in zeros}
    assert {(names.LABELS, "caption"), (names.ANSWERS, "caption"), (names.ANSWERS, "ocr")} <= begun
    assert (names.LABELS, "ocr") not in begun
    assert {(names.REDECODES, "caption", "truncated"), (names.REDECODES, "ocr", "marks")} <= begun
    assert (names.REDECODES, "ocr", "truncated") not in begun, "which is only flagged there"
    assert {metric.name for metric, *_ in begun} == {
        metric.name
        for metric in names.METRICS
        if metric.name.startswith("labelmill_engine_")
        or metric in (names.LABELS, names.PROMPT_TOKENS, names.OUTPUT_TOKENS, names.ANSWERS, names.REDECODES)
    }
