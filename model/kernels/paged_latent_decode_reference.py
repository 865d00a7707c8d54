"""The plain PyTorch twin of `model.kernels.paged_latent_decode`: what it computes, on any device.

Shapes: B sequences, H heads, L latent width, W row width, S slots, P pages and C tokens of the widest context.
"""

import torch
from torch import Tensor


def paged_latent_decode_reference(
    queries_BHW: Tensor,
    rows_SW: Tensor,
    page_table_BP: Tensor,
    context_lens_B: Tensor,
    *,
    page_tokens: int,
    latent_width: int,
    scale: float,
) -> Tensor:
    """As `paged_latent_decode`, for every width and dtype; gathers all P pages of every sequence as float32."""
    tokens_C = torch.arange(page_table_BP.shape[1] * page_tokens, device=rows_SW.device)
    in_context_BC = tokens_C < context_lens_B[:, None]
    slots_BC = page_table_BP.long()[:, tokens_C // page_tokens] * page_tokens + tokens_C % page_tokens
    # Zero, not only weightless: an unused slot may hold NaN.
    context_BCW = rows_SW[slots_BC * in_context_BC].float().masked_fill(~in_context_BC[..., None], 0)
    scores_BHC = torch.einsum("bhw,bcw->bhc", queries_BHW.float(), context_BCW) * scale
    weights_BHC = scores_BHC.masked_fill(~in_context_BC[:, None], -torch.inf).softmax(-1)
    weights_BHC = weights_BHC.masked_fill(~in_context_BC[:, None], 0)  # an empty context has no softmax
    return torch.einsum("bhc,bcl->bhl", weights_BHC, context_BCW[..., :latent_width]).to(queries_BHW.dtype)
