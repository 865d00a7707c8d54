"""The tower's attention is flash attention on a GPU in bfloat16: nothing in its way asks for another."""

from dataclasses import replace

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.variants import variant_config
from model.vision_encoder import VisionEncoder
from tests.gpu.helpers import CUDA, ON_GPU

pytestmark = ON_GPU


def tower() -> VisionEncoder:
    """Two layers as wide as the released ones: heads of 72."""
    torch.manual_seed(0)
    with torch.device(CUDA):
        encoder = VisionEncoder(replace(variant_config("tiny").vision, layers=2))
    encoder.pos_embed.data.normal_()
    return encoder.requires_grad_(False)


def test_tower_runs_by_flash_attention_alone():
    encoder = tower()
    tiles_NSS3 = torch.randint(0, 256, (2, 384, 384, 3), dtype=torch.uint8, device=CUDA)
    with torch.inference_mode():
        expected_NPC = encoder(tiles_NSS3)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            features_NPC = encoder.bfloat16()(tiles_NSS3)
    assert features_NPC.dtype == torch.bfloat16
    assert (features_NPC.float() - expected_NPC).norm() < 0.05 * expected_NPC.norm()
