"""A constrained answer has the wanted form and fits its budget, whatever the weights, the tokenizer and the label."""

import functools
import random
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoint_files import NANO_FOLDER
from model.config_files import load_model_config
from model.constraint_specs import BoxList, Choice, ConstraintSpec
from model.constraints import Constraint, compile_constraint, mask_rows
from model.nano.lessons import choose_phrases, grounding_turn
from model.nano.scenes import render_scene
from model.prompt import Processor
from model.tokenizer import DET, DET_END, REF, REF_END, ChatTokenizer, Text
from pipeline.recipes.boxes import parse_boxes
from tests import golden

CHECKPOINTS = (*golden.CHECKPOINTS, "nano")
LABEL = "the red circle"
HOSTILE_LABELS = (REF, REF_END, DET, f"a{REF_END}{DET}[[0, 0, 9, 9]]{DET_END}", "<｜end▁of▁sentence｜>", "<image>")
CONFUSABLE = ("no", "none", "nothing", "non", "日本", "日本語", "🙂", "🙃", "🙂🙂", " no")


@functools.cache
def processor(checkpoint: str) -> Processor:
    return Processor.from_checkpoint(NANO_FOLDER) if checkpoint == "nano" else golden.processor(checkpoint)


@functools.cache
def num_logits(checkpoint: str) -> int:
    folder = NANO_FOLDER if checkpoint == "nano" else golden.checkpoint_folder(checkpoint)
    return load_model_config(folder).language.vocab_size


def compiled(spec: ConstraintSpec, checkpoint: str = "base-like", *, max_new_tokens: int = 200) -> Constraint:
    return compile_constraint(spec, processor(checkpoint).tokenizer, max_new_tokens=max_new_tokens)


def least_budget(spec: ConstraintSpec, checkpoint: str = "base-like") -> int:
    return compiled(spec, checkpoint, max_new_tokens=10_000).tokens_to_finish()


def follow(constraint: Constraint, token_ids: list[int]) -> Constraint:
    for index in token_ids:
        assert index in constraint.allowed_ids()
        constraint.advance(index)
    return constraint


class RandomWeights:
    """A model that has its likes and dislikes, and changes its mind a little at every token."""

    def __init__(self, checkpoint: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.likes_V = 3 * self.rng.standard_normal(num_logits(checkpoint))
        self.fickleness = self.rng.choice([0.0, 1.0, 10.0])
        self.is_greedy = bool(self.rng.integers(2))

    def never_ends(self, checkpoint: str) -> "RandomWeights":
        """Goes on where it can, and closes one bracket rather than two."""
        for index, text in processor(checkpoint).tokenizer.token_bytes().items():
            self.likes_V[index] += 1000 * (text in (b",", b" ", b"[", b"9")) - 1000 * text.count(b"]")
        return self

    def choose(self, allowed: np.ndarray) -> int:
        noise_V = self.fickleness * self.rng.standard_normal(len(self.likes_V))
        logits_V = mask_rows(torch.from_numpy(self.likes_V + noise_V).float()[None], [0], [allowed])[0]
        if self.is_greedy:
            return int(logits_V.argmax())
        probabilities_V = logits_V.softmax(0).double().numpy()
        return int(self.rng.choice(len(probabilities_V), p=probabilities_V / probabilities_V.sum()))


def answer(constraint: Constraint, weights: RandomWeights) -> list[int]:
    ids: list[int] = []
    while not constraint.is_finished:
        assert constraint.tokens_to_finish() <= constraint.tokens_left
        ids.append(weights.choose(constraint.allowed_ids()))
        constraint.advance(ids[-1])
    return ids


def num_boxes(text: str, label: str = LABEL) -> int:
    parsed = parse_boxes(text, default_label="none was given", width_px=999, height_px=999)
    assert parsed.flags == ()
    assert {box.label for box in parsed.boxes} <= {label}
    coordinates = [[box.x1, box.y1, box.x2, box.y2] for box in parsed.boxes]
    listed = [[round(coordinate) for coordinate in box] for box in coordinates]
    assert text == f"{REF}{label}{REF_END}{DET}{listed}{DET_END}"
    return len(listed)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_boxes_of_random_weights_always_parse(checkpoint: str):
    counts = set()
    for seed in range(60):
        rng = random.Random(seed)
        spec = BoxList(label=LABEL, max_boxes=rng.randint(1, 5))
        max_new_tokens = least_budget(spec, checkpoint) + rng.randint(0, 80)
        ids = answer(compiled(spec, checkpoint, max_new_tokens=max_new_tokens), RandomWeights(checkpoint, seed))
        assert len(ids) <= max_new_tokens
        assert ids[-1] == processor(checkpoint).tokenizer.eos_token_id
        count = num_boxes(processor(checkpoint).decode(ids))
        assert count <= spec.max_boxes
        counts.add(count)
    assert len(counts) > 2


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_list_that_would_go_on_is_closed_before_the_budget_is_spent(checkpoint: str):
    spec = BoxList(label=LABEL, max_boxes=50)
    weights = RandomWeights(checkpoint, 0).never_ends(checkpoint)
    for more_tokens in range(70):
        max_new_tokens = least_budget(spec, checkpoint) + more_tokens
        ids = answer(compiled(spec, checkpoint, max_new_tokens=max_new_tokens), weights)
        assert len(ids) <= max_new_tokens
        assert num_boxes(processor(checkpoint).decode(ids)) >= more_tokens // 30


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_list_that_would_go_on_ends_with_its_last_box(checkpoint: str):
    weights = RandomWeights(checkpoint, 0).never_ends(checkpoint)
    for max_boxes in (1, 3):
        ids = answer(compiled(BoxList(label=LABEL, max_boxes=max_boxes), checkpoint), weights)
        assert num_boxes(processor(checkpoint).decode(ids)) == max_boxes


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("spec", [BoxList(label=LABEL), Choice(options=CONFUSABLE)], ids=["boxes", "choice"])
def test_smallest_budget_gives_an_answer_and_one_token_less_is_refused(checkpoint: str, spec: ConstraintSpec):
    least = least_budget(spec, checkpoint)
    for seed in range(5):
        ids = answer(compiled(spec, checkpoint, max_new_tokens=least), RandomWeights(checkpoint, seed))
        text = processor(checkpoint).decode(ids)
        assert text == f"{REF}{LABEL}{REF_END}{DET}[]{DET_END}" if isinstance(spec, BoxList) else text in CONFUSABLE
    with pytest.raises(ValueError, match=f"max_new_tokens is {least - 1}, but the shortest answer may take {least} "):
        compiled(spec, checkpoint, max_new_tokens=least - 1)


def test_budget_counts_the_label_the_empty_list_and_the_end():
    num_label_tokens = len(processor("base-like").tokenizer.encode([Text(LABEL, False)]))
    assert least_budget(BoxList(label=LABEL)) == num_label_tokens + len([REF, REF_END, DET, "[", "]", DET_END, "eos"])


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize(
    "label", ["the dog", " x ", "", "naïve café", "左の犬", "🙂\n\t[[1, 2, 3, 4]]", "a<|b", *HOSTILE_LABELS]
)
def test_label_is_written_as_it_was_given_and_stays_letters(checkpoint: str, label: str):
    tokenizer = processor(checkpoint).tokenizer
    ids = answer(compiled(BoxList(label=label), checkpoint, max_new_tokens=400), RandomWeights(checkpoint, 1))
    marks = [tokenizer.control_token_id(mark) for mark in (REF, REF_END, DET, DET_END)]
    places = [ids.index(mark) for mark in marks]
    assert tokenizer.decode(ids[places[0] + 1 : places[1]]) == label
    control_ids = set(range(tokenizer.vocab_size)) - set(tokenizer.token_bytes())
    assert [index for index in ids if index in control_ids] == [*marks, tokenizer.eos_token_id]
    listed = processor(checkpoint).decode(ids[places[2] :])
    assert parse_boxes(listed, default_label=label, width_px=9, height_px=9).flags == ()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_answers_that_nano_was_taught_are_allowed_as_they_are_tokenised(checkpoint: str):
    tokenizer = processor(checkpoint).tokenizer
    numbers_of_boxes = set()
    for seed in range(20):
        scene = render_scene(seed)
        for phrase, boxes in choose_phrases(random.Random(seed), scene, 4):
            ids = tokenizer.encode([Text(grounding_turn(scene, phrase, boxes).answer, True)])
            constraint = follow(compiled(BoxList(label=phrase), checkpoint), [*ids, tokenizer.eos_token_id])
            assert constraint.is_finished
            numbers_of_boxes.add(len(boxes))
    assert {0, 1, 2} <= numbers_of_boxes


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_after_a_complete_list_only_its_mark_and_then_only_the_end_may_follow(checkpoint: str):
    tokenizer = processor(checkpoint).tokenizer
    ids = tokenizer.encode([Text(f"{REF}{LABEL}{REF_END}{DET}[[1, 2, 34, 567]]", True)])
    constraint = follow(compiled(BoxList(label=LABEL), checkpoint), ids)
    assert constraint.allowed_ids().tolist() == [tokenizer.control_token_id(DET_END)]
    constraint.advance(tokenizer.control_token_id(DET_END))
    assert constraint.allowed_ids().tolist() == [tokenizer.eos_token_id]
    assert not constraint.is_finished
    constraint.advance(tokenizer.eos_token_id)
    assert constraint.is_finished
    assert (constraint.tokens_to_finish(), len(constraint.allowed_ids())) == (0, 0)


@pytest.mark.parametrize("stop_id", [1, 64])
def test_any_end_of_sentence_ends_an_answer(stop_id: int):
    folder = golden.checkpoint_folder("base-like")
    tokenizer = ChatTokenizer.from_checkpoint(folder, image_token="<image>", bos_token_id=0, eos_token_id=64)
    constraint = compile_constraint(Choice(options=("1",)), tokenizer, max_new_tokens=2)
    follow(constraint, tokenizer.encode([Text("1", False)]))
    assert constraint.allowed_ids().tolist() == [1, 64]
    assert follow(constraint, [stop_id]).is_finished


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_choice_of_random_weights_is_one_of_the_options_and_each_is_within_reach(checkpoint: str):
    chosen = set()
    for seed in range(300):
        ids = answer(compiled(Choice(options=CONFUSABLE), checkpoint), RandomWeights(checkpoint, seed))
        assert ids[-1] == processor(checkpoint).tokenizer.eos_token_id
        chosen.add(processor(checkpoint).decode(ids))
    assert chosen == set(CONFUSABLE)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_choice_fits_every_budget_that_was_accepted(checkpoint: str):
    spec = Choice(options=("never", "nevermore", "日本語の犬", "0123456789"))
    for max_new_tokens in range(least_budget(spec, checkpoint), 20):
        for seed in range(10):
            ids = answer(compiled(spec, checkpoint, max_new_tokens=max_new_tokens), RandomWeights(checkpoint, seed))
            assert len(ids) <= max_new_tokens
            assert processor(checkpoint).decode(ids) in spec.options


def test_option_of_one_token_needs_room_for_that_token_and_the_end():
    assert least_budget(Choice(options=("yes", "absolutely not")), "nano") == 2
    token_id, eos_id = processor("nano").tokenizer.encode([Text("yes", False)])[0], 1
    constraint = compiled(Choice(options=("yes", "absolutely not")), "nano", max_new_tokens=2)
    assert constraint.allowed_ids().tolist() == [token_id]
    assert follow(constraint, [token_id, eos_id]).is_finished


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_option_may_be_written_byte_by_byte(checkpoint: str):
    id_of = {text: index for index, text in processor(checkpoint).tokenizer.token_bytes().items()}
    single_bytes = [id_of[bytes([byte])] for byte in "🙂🙂".encode()]
    constraint = follow(compiled(Choice(options=CONFUSABLE), checkpoint), single_bytes[:4])
    eos_id = processor(checkpoint).tokenizer.eos_token_id
    assert set(constraint.allowed_ids()) >= {eos_id, single_bytes[4]}
    assert follow(constraint, [*single_bytes[4:], eos_id]).is_finished


@pytest.mark.parametrize("option", [REF, "<｜end▁of▁sentence｜>"])
def test_option_that_spells_a_control_token_is_written_in_letters(option: str):
    tokenizer = processor("base-like").tokenizer
    ids = answer(compiled(Choice(options=(option,))), RandomWeights("base-like", 0))
    assert set(ids[:-1]) <= set(tokenizer.token_bytes())
    assert processor("base-like").decode(ids) == option


def test_token_that_is_not_allowed_is_refused_and_changes_nothing():
    constraint, tokenizer = compiled(BoxList(label=LABEL)), processor("base-like").tokenizer
    ids = tokenizer.encode([Text(f"{REF}{LABEL}{REF_END}{DET}[[1, 2, 34, 567]]{DET_END}", True)])
    for index in [*ids, tokenizer.eos_token_id]:
        before = constraint.allowed_ids().tolist(), constraint.tokens_left
        for wrong in sorted({*ids, tokenizer.eos_token_id, -1, 10_000} - set(before[0])):
            with pytest.raises(ValueError, match=f"token {wrong} is not allowed here"):
                constraint.advance(wrong)
        assert (constraint.allowed_ids().tolist(), constraint.tokens_left) == before
        constraint.advance(index)
    with pytest.raises(ValueError, match="is not allowed here; allowed are \\[\\]"):
        constraint.advance(tokenizer.eos_token_id)


def test_token_for_which_the_budget_is_too_small_is_refused():
    spec, tokenizer = BoxList(label=LABEL), processor("tiny-like").tokenizer
    constraint = compiled(spec, "tiny-like", max_new_tokens=least_budget(spec, "tiny-like") + 5)
    start, opening_bracket = (tokenizer.encode([Text(text, True)]) for text in (f"{REF}{LABEL}{REF_END}{DET}[", "["))
    follow(constraint, start)
    with pytest.raises(ValueError, match="is not allowed here"):
        constraint.advance(opening_bracket[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoxList(label=LABEL, max_boxes=0), "max_boxes is 0"),
        (lambda: BoxList(label=LABEL, max_boxes=1.5), "max_boxes is 1.5"),
        (lambda: BoxList(label=None), "label is None"),
        (lambda: BoxList(label="\ud83d"), "label is no valid Unicode"),
        (lambda: Choice(options=()), "at least one text"),
        (lambda: Choice(options="yes"), "options is 'yes', but must be a tuple"),
        (lambda: Choice(options=("yes", "")), "none of them empty"),
        (lambda: Choice(options=("yes", "yes")), "must be different"),
        (lambda: Choice(options=("yes", 1)), "an option is 1"),
        (lambda: Choice(options=("\ud83d",)), "an option is no valid Unicode"),
    ],
)
def test_spec_that_nothing_can_satisfy_is_refused(make, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_ids_past_the_logits_are_neither_offered_nor_counted_on():
    tokenizer = processor("nano").tokenizer
    yes_id = tokenizer.encode([Text("yes", False)])[0]
    spec = Choice(options=("yes",))
    assert yes_id in compile_constraint(spec, tokenizer, max_new_tokens=4, num_logits=yes_id + 1).allowed_ids()
    narrow = compile_constraint(spec, tokenizer, max_new_tokens=4, num_logits=yes_id)
    assert narrow.allowed_ids().max() < yes_id
    assert narrow.tokens_to_finish() > 2


@pytest.mark.parametrize(
    ("spec", "num_logits", "message"),
    [
        (BoxList(label=LABEL), 612, "token 612, part of every answer to this label, is past the 612 logits"),
        (BoxList(label=LABEL), 40, "is past the 40 logits"),
        (Choice(options=("yes",)), 1, "every end of sentence ([1]) is past the 1 logits"),
        (Choice(options=("yes",)), 2, "no tokens that spell the option 'yes'"),
    ],
)
def test_model_without_logits_for_what_must_be_written_is_refused(spec: ConstraintSpec, num_logits: int, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        compile_constraint(spec, processor("base-like").tokenizer, max_new_tokens=99, num_logits=num_logits)


@pytest.mark.parametrize("allowed", [[2, 0], np.array([2, 0, 7, 4])], ids=["list", "array with ids past the logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_logits_are_those_of_the_allowed_ids(allowed: list[int] | np.ndarray, dtype: torch.dtype):
    logits_V: Tensor = torch.tensor([-1.0, 5.0, 2.0, 0.0], dtype=dtype)
    masked_V = mask_rows(logits_V[None], [0], [np.array(allowed)])[0]
    assert masked_V.tolist() == [-1.0, -torch.inf, 2.0, -torch.inf]
    assert masked_V.dtype == dtype
    assert logits_V.tolist() == [-1.0, 5.0, 2.0, 0.0]


def test_mask_that_leaves_no_logit_is_refused():
    with pytest.raises(ValueError, match=r"none of the 2 allowed ids \[4, 9\] has one of 4 logits"):
        mask_rows(torch.zeros(1, 4), [0], [np.array([4, 9])])


def test_rows_without_a_constraint_stay_as_they_are():
    logits_BV = torch.arange(12.0).view(3, 4)
    masked_BV = mask_rows(logits_BV, [2, 0], [np.array([1]), np.array([0, 3])])
    off = -torch.inf
    assert masked_BV.tolist() == [[0, off, off, 3], [4, 5, 6, 7], [off, 9, off, off]]
