"""A step knows which rows each sequence writes and reads: spans first, then one token of each decoding sequence."""

import torch

from model.kv_cache import PAGE_TOKENS
from model.step_layout import GROUP_CONTEXT_TOKENS, SequenceStep, StepLayout, pack_step

CPU = torch.device("cpu")


def decoding(pages: list[int], length: int) -> SequenceStep:
    return SequenceStep(pages=pages, start=length - 1, end=length)


def test_step_packs_prompts_first_and_then_one_token_of_each_decoding_sequence():
    layout = pack_step(
        [SequenceStep(pages=[0], start=0, end=3), SequenceStep(pages=[1, 2], start=15, end=17)],
        [decoding([4], 2), decoding([3], 5)],
        CPU,
    )
    assert layout.positions_T.tolist() == [0, 1, 2, 15, 16, 1, 4]
    assert layout.new_slots_T.tolist() == [0, 1, 2, 31, 32, 65, 52]
    assert [(span.start, span.end, span.num_past) for span in layout.prefill] == [(0, 3, 0), (3, 5, 15)]
    assert [span.pages_P.tolist() for span in layout.prefill] == [[0], [1, 2]]
    assert layout.num_prefill_tokens == 5
    assert layout.decode.page_table_BP.tolist() == [[4], [3]]
    assert layout.decode.context_lens_B.tolist() == [2, 5]


def test_page_table_is_padded_and_the_mask_hides_the_padding():
    layout = pack_step([], [decoding([5], 3), decoding([2, 1], 18)], CPU)
    assert layout.decode.page_table_BP.tolist() == [[5, 0], [2, 1]]
    (group,) = layout.decode.groups
    assert group.pages_BP.tolist() == [[5, 0], [2, 1]]
    assert group.mask_BS.sum(dim=1).tolist() == [3, 18]
    assert group.mask_BS[0, :3].all()


def test_pages_a_sequence_holds_for_later_are_not_read():
    layout = pack_step([SequenceStep(pages=[7, 8, 9], start=0, end=16)], [decoding([3, 4, 5], 16)], CPU)
    assert layout.prefill[0].pages_P.tolist() == [7]
    assert layout.decode.page_table_BP.tolist() == [[3]]


def test_sequences_are_gathered_together_while_their_padded_contexts_are_small():
    per_sequence = GROUP_CONTEXT_TOKENS["cpu"] // 4 // PAGE_TOKENS
    steps = [decoding(list(range(per_sequence)), per_sequence * PAGE_TOKENS) for _ in range(6)]
    layout = pack_step([], steps, CPU)
    assert [(group.start, group.end) for group in layout.decode.groups] == [(0, 4), (4, 6)]


def test_sequence_longer_than_a_group_is_gathered_by_itself():
    num_pages = GROUP_CONTEXT_TOKENS["cpu"] // PAGE_TOKENS + 1
    layout = pack_step([], [decoding([1], 4), decoding(list(range(num_pages)), num_pages * PAGE_TOKENS)], CPU)
    assert [(group.start, group.end) for group in layout.decode.groups] == [(0, 1), (1, 2)]


def test_step_of_prompts_only_decodes_nothing():
    assert pack_step([SequenceStep(pages=[0], start=0, end=1)], [], CPU).decode is None


def test_step_of_decoding_sequences_only_has_no_spans():
    layout = pack_step([], [decoding([2], PAGE_TOKENS)], CPU)
    assert layout.prefill == ()
    assert layout.num_prefill_tokens == 0
    assert layout.new_slots_T.tolist() == [3 * PAGE_TOKENS - 1]


def test_whole_sequence_needs_no_cache():
    layout = StepLayout.whole_sequence(3, CPU)
    assert layout.positions_T.tolist() == [0, 1, 2]
    assert layout.new_slots_T is None
