"""Routing and experts equal a plain twin that goes token by token, and gradients reach every weight."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import checkpoint as checkpoints
from model.config import LanguageConfig
from model.moe import MoE, Router, experts_loop, grouped_linear, silu_and_mul
from tests import golden

WIDTH, EXPERTS, PER_TOKEN, TOKENS = 8, 12, 3, 20


def config(**changes) -> LanguageConfig:
    return LanguageConfig(
        **{
            "hidden_size": WIDTH,
            "moe_intermediate_size": 16,
            "n_routed_experts": EXPERTS,
            "num_experts_per_tok": PER_TOKEN,
            **changes,
        }
    )


ROUTERS = {
    "greedy": config(),
    "greedy normalised and scaled": config(norm_topk_prob=True, routed_scaling_factor=2.5),
    "one expert is not normalised": config(num_experts_per_tok=1, norm_topk_prob=True, routed_scaling_factor=3.0),
    "sigmoid": config(scoring_func="sigmoid"),
    "groups": config(topk_method="group_limited_greedy", n_group=4, topk_group=2),
    "one group of four": config(topk_method="group_limited_greedy", n_group=4, topk_group=1),
    "bias": config(topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.0),
    "bias and groups": config(topk_method="noaux_tc", scoring_func="sigmoid", n_group=4, topk_group=2),
    "bias and softmax": config(topk_method="noaux_tc", n_group=2, topk_group=1),
}


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)


def tokens(count: int = TOKENS) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7))


def route_one(router: Router, hidden: list[float]) -> dict[int, float]:
    """Expert -> weight of one token, in plain Python."""
    cfg = router.config
    logits = [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in router.weight.tolist()]
    if cfg.scoring_func == "softmax":
        total = sum(math.exp(logit) for logit in logits)
        scores = [math.exp(logit) / total for logit in logits]
    else:
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    biased = cfg.topk_method == "noaux_tc"
    bias = router.e_score_correction_bias.tolist() if biased else [0.0] * len(scores)
    choice = [score + offset for score, offset in zip(scores, bias, strict=True)]
    if cfg.topk_method != "greedy":
        size = len(choice) // cfg.n_group
        groups = [choice[start : start + size] for start in range(0, len(choice), size)]
        values = [sum(sorted(group)[-2:]) if biased else max(group) for group in groups]
        best = sorted(range(cfg.n_group), key=lambda group: -values[group])[: cfg.topk_group]
        choice = [value if expert // size in best else 0.0 for expert, value in enumerate(choice)]
    chosen = sorted(range(len(choice)), key=lambda expert: -choice[expert])[: cfg.num_experts_per_tok]
    weights = {expert: scores[expert] for expert in chosen}
    total = sum(weights.values()) if cfg.norm_topk_prob and cfg.num_experts_per_tok > 1 else 1.0
    return {expert: weight / total * cfg.routed_scaling_factor for expert, weight in weights.items()}


@pytest.mark.parametrize("kind", ROUTERS)
def test_router_chooses_and_weighs_as_its_plain_twin(kind: str):
    router = Router(ROUTERS[kind])
    randomise(router)
    if router.config.topk_method == "noaux_tc":
        router.e_score_correction_bias.data.abs_()  # a negative one could let an expert of a masked group win
    hidden_TD = tokens()
    ids_TK, weights_TK = router(hidden_TD)
    for ids, weights, hidden in zip(ids_TK.tolist(), weights_TK.tolist(), hidden_TD.tolist(), strict=True):
        assert dict(zip(ids, weights, strict=True)) == pytest.approx(route_one(router, hidden), rel=1e-4)


def test_correction_bias_steers_the_choice_but_not_the_weights():
    router = Router(config(topk_method="noaux_tc", scoring_func="sigmoid", num_experts_per_tok=1))
    randomise(router)
    router.e_score_correction_bias.data.zero_()[5] = 100.0
    ids, weights = router(tokens())
    assert (ids == 5).all()
    torch.testing.assert_close(weights[:, 0], F.linear(tokens(), router.weight)[:, 5].sigmoid())


def test_router_computes_in_float32_whatever_the_activations_are():
    router = Router(config())
    randomise(router)
    ids, weights = router(tokens().bfloat16())
    expected_ids, expected_weights = router(tokens().bfloat16().float())
    assert weights.dtype == torch.float32
    assert torch.equal(ids, expected_ids)
    assert torch.equal(weights, expected_weights)


def moe_twin(moe: MoE, hidden_TD: Tensor) -> Tensor:
    rows = []
    for hidden_D in hidden_TD:
        row = torch.zeros(WIDTH) if moe.shared_experts is None else moe.shared_experts(hidden_D)
        for expert, weight in route_one(moe.gate, hidden_D.tolist()).items():
            gate, up = (moe.experts.gate_up_proj[expert] @ hidden_D).chunk(2)
            row = row + weight * (moe.experts.down_proj[expert] @ (F.silu(gate) * up))
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("shared", [None, 0, 2])
@pytest.mark.parametrize("count", [1, 2, TOKENS], ids=lambda count: f"{count} tokens")
def test_experts_add_up_as_in_the_plain_twin_also_where_most_get_no_token(count: int, shared: int | None):
    moe = MoE(config(n_shared_experts=shared, norm_topk_prob=True))
    randomise(moe)
    hidden_TD = tokens(count)
    torch.testing.assert_close(moe(hidden_TD), moe_twin(moe, hidden_TD), atol=1e-4, rtol=1e-4)


def test_output_of_a_token_does_not_depend_on_the_others():
    moe = MoE(config(n_shared_experts=1))
    randomise(moe)
    alone = torch.cat([moe(row[None]) for row in tokens()])
    torch.testing.assert_close(moe(tokens()), alone, atol=1e-5, rtol=1e-5)


def test_padding_is_no_load():
    moe = MoE(config(n_shared_experts=1))
    randomise(moe)
    hidden_TD, is_token_T = tokens(), torch.arange(TOKENS) < 13
    padded_TD = moe(hidden_TD, is_token_T)
    padded_load, moe.dispatcher.load_E = moe.dispatcher.load_E, None
    torch.testing.assert_close(padded_TD[:13], moe(hidden_TD[:13]), atol=1e-5, rtol=1e-5)
    assert padded_load.tolist() == moe.dispatcher.load_E.tolist()
    assert sum(padded_load.tolist()) == 13 * PER_TOKEN


def test_all_tokens_may_choose_the_same_experts():
    moe = MoE(config(topk_method="noaux_tc", scoring_func="sigmoid"))
    randomise(moe)
    moe.gate.e_score_correction_bias.data.zero_()[:PER_TOKEN] = 100.0
    torch.testing.assert_close(moe(tokens()), moe_twin(moe, tokens()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0, 0, 9], [9, 0, 0, 0], [0, 0, 0, 1]], ids=str)
@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped_mm")
def test_loop_over_experts_equals_the_grouped_product(counts: list[int]):
    generator = torch.Generator().manual_seed(0)
    gate_up_EJD = torch.randn(4, 48, 16, generator=generator).bfloat16()
    down_EDI = torch.randn(4, 16, 24, generator=generator).bfloat16()
    x_ND = torch.randn(sum(counts), 16, generator=generator).bfloat16()
    offsets_E = torch.tensor(counts).cumsum(0).to(torch.int32)
    grouped = grouped_linear(silu_and_mul(grouped_linear(x_ND, gate_up_EJD, offsets_E)), down_EDI, offsets_E)
    torch.testing.assert_close(experts_loop(x_ND, gate_up_EJD, down_EDI, offsets_E), grouped, atol=5e-1, rtol=2e-2)


def test_no_rows_are_no_rows():
    offsets_E = torch.zeros(4, dtype=torch.int32)
    weights = torch.zeros(4, 48, 16), torch.zeros(4, 16, 24)
    assert experts_loop(torch.empty(0, 16), *weights, offsets_E).shape == (0, 16)


@pytest.mark.parametrize("name", ["base-like", "tiny-like", "extra84-like"])
def test_loss_gives_every_parameter_a_finite_gradient(name: str):
    model = checkpoints.load(golden.checkpoint_folder(name)).requires_grad_(True)
    prompt = golden.prompt(name, "one_wide")
    logits_TV = model.logits(prompt)
    F.cross_entropy(logits_TV[:-1], torch.from_numpy(prompt.input_ids[1:])).backward()
    # The correction bias steers the choice only: it has no gradient by design (arXiv 2412.19437, section 2.1.2).
    gradients = {n: p.grad for n, p in model.named_parameters() if "e_score_correction_bias" not in n}
    without = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    not_finite = [
        name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()
    ]
    assert (without, not_finite) == ([], [])
