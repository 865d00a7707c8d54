"""Typed configuration of a model and of its processor; `config_files` reads it from a checkpoint's files.

DeepSeek's keys keep their names. Defaults are those of the reference's configuration classes, because published
checkpoints leave out every key that equals its default. Knows no files and no tensors.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The SigLIP tower."""

    image_size: int = 384
    patch_size: int = 16
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_ratio: float = 4

    @property
    def grid_side(self) -> int:
        """Patches per side; a remainder of pixels at the right and bottom is ignored (384 = 27 * 14 + 6)."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_side**2


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """downsample_mlp_gelu: blocks of `downsample_ratio`^2 patches -> one token of width `n_embed`."""

    input_dim: int = 1152
    n_embed: int = 2048
    depth: int = 2
    """Number of linear layers."""
    mlp_ratio: int = 1
    downsample_ratio: int = 2


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """`rope_scaling` of type "yarn" (arXiv 2309.00071)."""

    factor: float
    original_max_position_embeddings: int = 4096
    beta_fast: float = 32
    beta_slow: float = 1
    mscale: float = 1
    mscale_all_dim: float = 0

    @staticmethod
    def attention_factor(factor: float, mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


@dataclass(frozen=True, kw_only=True)
class LinearRopeConfig:
    """`rope_scaling` of type "linear": positions are divided by `factor`."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    vocab_size: int = 102400
    hidden_size: int = 4096
    intermediate_size: int = 11008
    moe_intermediate_size: int = 1407
    num_hidden_layers: int = 30
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    n_shared_experts: int | None = None
    n_routed_experts: int | None = None
    num_experts_per_tok: int = 0
    moe_layer_freq: int = 1
    first_k_dense_replace: int = 0
    routed_scaling_factor: float = 1.0
    topk_method: str = "greedy"
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False
    scoring_func: str = "softmax"
    use_mla: bool = True
    kv_lora_rank: int = 512
    q_lora_rank: int | None = 1536
    qk_rope_head_dim: int = 64
    qk_nope_head_dim: int = 128
    v_head_dim: int = 128
    attention_bias: bool = False
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: YarnConfig | LinearRopeConfig | None = None
    max_position_embeddings: int = 2048
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    """None where the file leaves them out, as some published ones do: then the tokenizer's own are meant."""

    def is_moe_layer(self, layer: int) -> bool:
        return (
            self.n_routed_experts is not None
            and layer >= self.first_k_dense_replace
            and layer % self.moe_layer_freq == 0
        )

    @property
    def head_dim(self) -> int:
        """Of plain multi-head attention (`use_mla` false)."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    vision: VisionConfig
    projector: ProjectorConfig
    language: LanguageConfig
    candidate_resolutions: tuple[tuple[int, int], ...]
    global_view_first: bool = True
    """`global_view_pos`: "head" puts the global view before the local tiles, "tail" after them."""

    @property
    def tokens_per_side(self) -> int:
        """Image tokens per side of one tile, n = ceil(grid / downsample_ratio)."""
        return -(-self.vision.grid_side // self.projector.downsample_ratio)


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    candidate_resolutions: tuple[tuple[int, int], ...]
    patch_size: int
    downsample_ratio: int
    image_token: str = "<image>"
    pad_token: str = "<｜▁pad▁｜>"
    image_mean: float = 0.5
    image_std: float = 0.5

    @property
    def tokens_per_side(self) -> int:
        return -(-(self.candidate_resolutions[0][0] // self.patch_size) // self.downsample_ratio)

    def num_image_tokens(self, grid: tuple[int, int]) -> int:
        """Global view with its newlines, one separator, the mosaic of local tiles with a newline per row."""
        n = self.tokens_per_side
        tiles_wide, tiles_high = grid
        return n * (n + 1) + 1 + tiles_high * n * (tiles_wide * n + 1)
