"""The attention and the dispatch of training, beside the plain ones: the same outputs and the same gradients."""

import pytest
import torch

from model.nano.padded_dispatcher import RUN_STEP, PaddedTokenDispatcher
from model.nano.turn_attention import BLOCK_ROWS, attend, make_blocks, make_masks
from model.token_dispatcher import LocalTokenDispatcher

HEADS, WIDTH, SCALE = 2, 8, 0.3


def plain_attention(q_THQ, k_THQ, v_THV, sees_TT):
    scores_HTT = torch.einsum("thq,shq->hts", q_THQ, k_THQ) * SCALE
    return torch.einsum("hts,shv->thv", scores_HTT.masked_fill(~sees_TT, -torch.inf).softmax(-1), v_THV)


def visible(images: list[tuple[int, list[int]]]) -> torch.Tensor:
    """[T, T] by the rule itself: a token sees those before it that are shared or of its own turn."""
    owners = [
        (image, turn)
        for image, (num_shared, lengths) in enumerate(images)
        for turn, length in enumerate([num_shared, *lengths])
        for _ in range(length)
    ]
    rows = [[a[0] == b[0] and b[1] in (0, a[1]) and s <= t for s, b in enumerate(owners)] for t, a in enumerate(owners)]
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "images",
    [
        [(5, [3])],
        [(BLOCK_ROWS + 7, [2, BLOCK_ROWS + 40, 1, 30])],
        [(4, [50, 50, 50, 50]), (1, [1]), (2 * BLOCK_ROWS, [BLOCK_ROWS, 3])],
    ],
    ids=["one turn", "a turn that is longer than a block", "three images"],
)
def test_turns_attend_in_blocks_as_by_one_product_over_all(images: list[tuple[int, list[int]]]):
    torch.manual_seed(0)
    blocks, start = [], 0
    for num_shared, lengths in images:
        blocks += make_blocks(start, num_shared, lengths)
        start += num_shared + sum(lengths)
    inputs = [torch.randn(start, HEADS, WIDTH, requires_grad=True) for _ in range(3)]
    wanted_THV = plain_attention(*inputs, visible(images))
    found_THV = attend(*inputs, blocks, make_masks(blocks, torch.float32, torch.device("cpu")), SCALE)
    torch.testing.assert_close(found_THV, wanted_THV)
    weights_THV = torch.randn_like(found_THV)
    gradients = [torch.autograd.grad((out * weights_THV).sum(), inputs) for out in (found_THV, wanted_THV)]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_padded_runs_give_each_token_what_its_experts_make_of_it():
    torch.manual_seed(0)
    hidden_TD = torch.randn(100, 4, requires_grad=True)
    ids_TK = torch.randint(0, 3, (100, 2))
    ids_TK[ids_TK == 1] = 4  # expert 1 gets nothing
    weights_TK = torch.rand(100, 2, requires_grad=True)
    results, loads = [], []
    for dispatcher in (LocalTokenDispatcher(5), PaddedTokenDispatcher(5)):
        dispatched = dispatcher.dispatch(hidden_TD, ids_TK)
        ends = dispatched.offsets_E.tolist()
        experts = [
            dispatched.hidden_ND[start:end] * (expert + 1)
            for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
        ]
        combined_TD = dispatcher.combine(torch.cat(experts), dispatched, weights_TK)
        results.append((combined_TD, *torch.autograd.grad(combined_TD.square().sum(), (hidden_TD, weights_TK))))
        loads.append(dispatcher.load_E)
    assert all(end % RUN_STEP == 0 for end in ends)
    assert torch.equal(*loads)
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)
