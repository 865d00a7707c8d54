"""Our C for products of few rows agrees with PyTorch's for every width and stride, and no neighbour changes a bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels import few_rows
from model.linear import Linear
from model.moe import experts_loop

pytestmark = pytest.mark.skipif(
    not few_rows.is_available(), reason="few_rows.c was not built: no C compiler when the package was installed"
)

WIDTHS = [(1, 1), (3, 7), (8, 8), (33, 20), (64, 129), (100, 512)]


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("num_rows", [0, 1, 2, 4, 5, 16])
@pytest.mark.parametrize(("num_outputs", "width"), WIDTHS)
def test_linear_layer_agrees_with_its_twin_for_every_width(num_rows: int, num_outputs: int, width: int):
    x_TI, weight_OI = torch.randn(num_rows, width), torch.randn(num_outputs, width)
    torch.testing.assert_close(few_rows.linear(x_TI, weight_OI), F.linear(x_TI, weight_OI), atol=1e-4, rtol=1e-4)


def test_rows_may_lie_apart_in_memory():
    rows = torch.randn(4, 64)
    x_TI, weight_OI = rows[::2, 8:40], torch.randn(10, 32)
    torch.testing.assert_close(few_rows.linear(x_TI, weight_OI), F.linear(x_TI, weight_OI), atol=1e-4, rtol=1e-4)


def experts_case(counts: list[int], *, width: int = 24, inner: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_experts = len(counts)
    offsets_E = torch.tensor(counts).cumsum(0).to(torch.int32)
    gate_up_EJD, down_EDI = torch.randn(num_experts, 2 * inner, width), torch.randn(num_experts, width, inner)
    return torch.randn(sum(counts), width), gate_up_EJD, down_EDI, offsets_E


@pytest.mark.parametrize("counts", [[1], [0, 3, 0], [5, 0, 1, 9], [2] * 33, [0, 0, 40, 0]])
@pytest.mark.parametrize(("width", "inner"), [(1, 1), (24, 12), (64, 33), (129, 8)])
def test_experts_agree_with_their_twin_whoever_gets_how_many_rows(counts: list[int], width: int, inner: int):
    case = experts_case(counts, width=width, inner=inner)
    wanted_ND = experts_loop(*case)
    torch.testing.assert_close(few_rows.experts(*case), wanted_ND, atol=1e-3, rtol=1e-4)


def test_large_gates_of_either_sign_do_not_overflow():
    hidden_ND, gate_up_EJD, down_EDI, offsets_E = experts_case([2, 2])
    case = hidden_ND * 100, gate_up_EJD * 100, down_EDI, offsets_E
    found_ND = few_rows.experts(*case)
    assert found_ND.isfinite().all()
    torch.testing.assert_close(found_ND, experts_loop(*case), rtol=1e-4, atol=1.0)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_a_row_has_the_same_bits_alone_and_beside_others_and_with_any_number_of_threads(num_threads: int):
    x_TI, weight_OI = torch.randn(13, 70), torch.randn(90, 70)
    hidden_ND, gate_up_EJD, down_EDI, _ = experts_case([7, 0, 6], width=70, inner=30)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [few_rows.linear(x_TI[row : row + 1], weight_OI)[0] for row in range(13)]
        first_alone = few_rows.experts(hidden_ND[:1], gate_up_EJD, down_EDI, torch.tensor([1, 1, 1]).int())
        torch.set_num_threads(num_threads)
        assert torch.equal(few_rows.linear(x_TI, weight_OI), torch.stack(alone))
        together_ND = few_rows.experts(hidden_ND, gate_up_EJD, down_EDI, torch.tensor([7, 7, 13]).int())
        assert torch.equal(together_ND[:1], first_alone)
    finally:
        torch.set_num_threads(before)


def test_layer_adds_its_bias_and_leaves_many_rows_other_dtypes_and_gradients_to_pytorch():
    layer = Linear(40, 24)
    x_TI = torch.randn(few_rows.MAX_ROWS, 40)
    assert few_rows.takes_linear(x_TI, layer.weight)
    torch.testing.assert_close(layer(x_TI), F.linear(x_TI, layer.weight, layer.bias), atol=1e-5, rtol=1e-4)
    assert not few_rows.takes_linear(torch.randn(few_rows.MAX_ROWS + 1, 40), layer.weight)
    assert not few_rows.takes_linear(x_TI.bfloat16(), layer.weight)
    assert not few_rows.takes_linear(x_TI, layer.weight.bfloat16())
    with torch.inference_mode(False), torch.enable_grad():
        assert not few_rows.takes_linear(torch.randn(2, 40), layer.weight), "training needs gradients"
