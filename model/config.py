"""The checkpoint's `config.json` and `processor_config.json` -> typed configuration; the only reader of foreign keys.

DeepSeek's keys keep their names. Defaults are those of the reference's configuration classes, because published
checkpoints leave out every key that equals its default. Knows no tensors.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    bos_token_id: int = 100000
    eos_token_id: int = 100001

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


def load_model_config(folder: Path) -> ModelConfig:
    """Reads `config.json`. Raises ValueError naming the key for anything this implementation would compute wrongly."""
    raw = _read_json(folder / "config.json")
    where = str(folder / "config.json")
    _require(raw.get("tile_tag", "tile_tag") == "2D", where, "tile_tag", raw.get("tile_tag"), '"2D"')
    position = raw.get("global_view_pos", "head")
    _require(position in ("head", "tail"), where, "global_view_pos", position, '"head" or "tail"')
    projector = raw.get("projector_config", {})
    kind = projector.get("projector_type", "downsample_mlp_gelu")
    _require(kind == "downsample_mlp_gelu", where, "projector_config.projector_type", kind, "downsample_mlp_gelu")
    vision = raw.get("vision_config", {})
    _require(not vision.get("class_token", False), where, "vision_config.class_token", True, "false")
    config = ModelConfig(
        vision=_pick(VisionConfig, vision),
        projector=_pick(ProjectorConfig, projector),
        language=_language_config(raw.get("language_config", {}), where),
        candidate_resolutions=_resolutions(raw.get("candidate_resolutions", [(384, 384)]), where),
        global_view_first=position == "head",
    )
    _check(config, where)
    return config


def load_processor_config(folder: Path) -> ProcessorConfig:
    """Reads `processor_config.json`."""
    path = folder / "processor_config.json"
    raw = _read_json(path)
    _require(
        raw.get("sft_format", "deepseek") == "deepseek",
        str(path),
        "sft_format",
        raw.get("sft_format"),
        "deepseek",
    )
    levels = {*raw.get("image_mean", [0.5]), *raw.get("image_std", [0.5])}
    _require(levels == {0.5}, str(path), "image_mean and image_std", sorted(levels), "0.5 for every channel")
    return ProcessorConfig(
        candidate_resolutions=_resolutions(raw["candidate_resolutions"], str(path)),
        patch_size=raw["patch_size"],
        downsample_ratio=raw["downsample_ratio"],
        image_token=raw.get("image_token", "<image>"),
        pad_token=raw.get("pad_token", "<｜▁pad▁｜>"),
    )


def _language_config(raw: Mapping[str, Any], where: str) -> LanguageConfig:
    raw = {**raw}
    scaling = raw.pop("rope_scaling", None)
    for key, allowed in {
        "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
        "scoring_func": ("softmax", "sigmoid"),
        "hidden_act": ("silu",),
        "tie_word_embeddings": (False,),
    }.items():
        if key in raw:
            _require(raw[key] in allowed, where, f"language_config.{key}", raw[key], " or ".join(map(str, allowed)))
    for key in ("n_group", "topk_group", "num_experts_per_tok", "kv_lora_rank"):
        if raw.get(key) is None:  # null in the files of checkpoints that do not use it
            raw.pop(key, None)
    if raw.get("num_key_value_heads") is None:
        raw["num_key_value_heads"] = raw.get("num_attention_heads", LanguageConfig.num_attention_heads)
    if raw.get("n_routed_experts") is not None:
        _require("topk_method" in raw, where, "language_config.topk_method", None, "set: it has no usable default")
    return _pick(LanguageConfig, {**raw, "rope_scaling": _rope_scaling(scaling, where)})


def _rope_scaling(raw: Mapping[str, Any] | None, where: str) -> YarnConfig | LinearRopeConfig | None:
    if raw is None:
        return None
    kind = raw.get("type", raw.get("rope_type"))
    _require(kind in ("yarn", "linear"), where, "language_config.rope_scaling.type", kind, '"yarn" or "linear"')
    return _pick(YarnConfig, raw) if kind == "yarn" else _pick(LinearRopeConfig, raw)


def _check(config: ModelConfig, where: str) -> None:
    language, size = config.language, config.vision.image_size
    first = config.candidate_resolutions[0]
    _require(
        first == (size, size),
        where,
        "candidate_resolutions[0]",
        first,
        f"the tower's image_size {(size, size)}",
    )
    _require(
        config.projector.n_embed == language.hidden_size,
        where, "projector_config.n_embed", config.projector.n_embed, f"hidden_size {language.hidden_size}",
    )  # fmt: skip
    _require(
        config.projector.input_dim == config.vision.width,
        where, "projector_config.input_dim", config.projector.input_dim, f"vision width {config.vision.width}",
    )  # fmt: skip
    if language.n_routed_experts is not None:
        groups = language.n_group
        _require(language.n_routed_experts % groups == 0, where, "language_config.n_group", groups, "a divisor")
        enough = language.topk_method != "noaux_tc" or language.n_routed_experts // groups >= 2
        _require(enough, where, "language_config.n_group", groups, "groups of at least two experts for noaux_tc")
    rope = language.rope_scaling
    mha_yarn = not language.use_mla and isinstance(rope, YarnConfig)
    _require(not mha_yarn, where, "language_config.rope_scaling.type", "yarn", '"linear" where use_mla is false')


def _pick(cls: type, raw: Mapping[str, Any]) -> Any:
    names = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return cls(**{key: value for key, value in raw.items() if key in names})


def _resolutions(raw: Any, where: str) -> tuple[tuple[int, int], ...]:
    resolutions = tuple((int(width), int(height)) for width, height in raw)
    _require(bool(resolutions), where, "candidate_resolutions", raw, "at least one")
    size = resolutions[0][0]
    whole = resolutions[0] == (size, size) and all(side % size == 0 for pair in resolutions for side in pair)
    _require(whole, where, "candidate_resolutions", raw, "multiples of a square first entry")
    return resolutions


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: a checkpoint folder in the Hugging Face layout has one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the download may be incomplete") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, not an object")
    return raw


def _require(ok: bool, where: str, key: str, value: object, wanted: str) -> None:
    if not ok:
        raise ValueError(f"{where}: {key} is {value!r}, but this model needs {wanted}")
