"""The checkpoint's `config.json` and `processor_config.json` -> typed configuration; the only reader of foreign keys.

DeepSeek's keys keep their names. Defaults are those of the reference's configuration classes, because published
checkpoints leave out every key that equals its default. Knows no tensors.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

MAX_LAYERS, MAX_EXPERTS = 256, 1024
MAX_TILE_SIZE, MAX_TILES = 4096, 256
"""What is larger is a damaged or hostile file, and would take hours or all memory to come to nothing. Other sizes need
no limit: the tensors of the checkpoint must have them."""


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


def load_model_config(folder: Path) -> ModelConfig:
    """Reads `config.json`. Raises ValueError naming the key for anything this implementation would compute wrongly."""
    path = folder / "config.json"
    return parse_model_config(_read_json(path), str(path))


def parse_model_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The content of a `config.json`; `where` names it in the ValueError that `load_model_config` speaks of."""
    _require(raw.get("tile_tag", "tile_tag") == "2D", where, "tile_tag", raw.get("tile_tag"), '"2D"')
    position = raw.get("global_view_pos", "head")
    _require(position in ("head", "tail"), where, "global_view_pos", position, '"head" or "tail"')
    projector = _section(raw, "projector_config", where)
    kind = projector.get("projector_type", "downsample_mlp_gelu")
    _require(kind == "downsample_mlp_gelu", where, "projector_config.projector_type", kind, "downsample_mlp_gelu")
    vision = _section(raw, "vision_config", where)
    _require(not vision.get("class_token", False), where, "vision_config.class_token", True, "false")
    config = ModelConfig(
        vision=_pick(VisionConfig, vision, where, "vision_config"),
        projector=_pick(ProjectorConfig, projector, where, "projector_config"),
        language=_language_config(_section(raw, "language_config", where), where),
        candidate_resolutions=_resolutions(raw.get("candidate_resolutions", [(384, 384)]), where),
        global_view_first=position == "head",
    )
    _check(config, where)
    return config


def load_processor_config(folder: Path) -> ProcessorConfig:
    """Reads `processor_config.json`. Raises ValueError naming the key, as `load_model_config` does."""
    where = str(folder / "processor_config.json")
    raw = {key: value for key, value in _read_json(Path(where)).items() if value is not None}
    sft_format = raw.get("sft_format", "deepseek")
    _require(sft_format == "deepseek", where, "sft_format", sft_format, "deepseek")
    _require(raw.get("normalize", True) is True, where, "normalize", raw.get("normalize"), "true")
    for key in ("image_mean", "image_std"):
        level = raw.get(key, [0.5])
        _require(level in ([0.5], [0.5, 0.5, 0.5]), where, key, level, "0.5 for every channel")
    resolutions = _resolutions(raw.pop("candidate_resolutions", None), where)
    config = _pick(ProcessorConfig, raw, where, candidate_resolutions=resolutions, image_mean=0.5, image_std=0.5)
    for key in ("patch_size", "downsample_ratio"):
        _require(getattr(config, key) >= 1, where, key, getattr(config, key), "at least 1")
    return config


def require_agreement(model: ModelConfig, processor: ProcessorConfig, folder: Path) -> None:
    """Raises ValueError where the processor would make tiles or image positions that the model does not compute."""
    where = str(folder / "processor_config.json")
    for key, mine, theirs in (
        ("candidate_resolutions[0]", processor.candidate_resolutions[0], model.candidate_resolutions[0]),
        ("patch_size", processor.patch_size, model.vision.patch_size),
        ("downsample_ratio", processor.downsample_ratio, model.projector.downsample_ratio),
    ):
        _require(mine == theirs, where, key, mine, f"{theirs} as in config.json")


def _language_config(raw: Mapping[str, Any], where: str) -> LanguageConfig:
    raw = {**raw}
    scaling = _section(raw, "rope_scaling", where, "language_config.")
    for key, allowed in {
        "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
        "scoring_func": ("softmax", "sigmoid"),
        "hidden_act": ("silu",),
        "tie_word_embeddings": (False,),
    }.items():
        if key in raw:
            _require(raw[key] in allowed, where, f"language_config.{key}", raw[key], " or ".join(map(str, allowed)))
    if raw.get("num_key_value_heads") is None:
        raw["num_key_value_heads"] = raw.get("num_attention_heads", LanguageConfig.num_attention_heads)
    if raw.get("n_routed_experts") is not None:
        _require("topk_method" in raw, where, "language_config.topk_method", None, "set: it has no usable default")
    return _pick(LanguageConfig, raw, where, "language_config", rope_scaling=_rope_scaling(scaling, where))


def _rope_scaling(raw: Mapping[str, Any], where: str) -> YarnConfig | LinearRopeConfig | None:
    if not raw:
        return None
    kind = raw.get("type", raw.get("rope_type"))
    _require(kind in ("yarn", "linear"), where, "language_config.rope_scaling.type", kind, '"yarn" or "linear"')
    rope = _pick(YarnConfig if kind == "yarn" else LinearRopeConfig, raw, where, "language_config.rope_scaling")
    _require(rope.factor >= 1, where, "language_config.rope_scaling.factor", rope.factor, "at least 1")
    return rope


def _check(config: ModelConfig, where: str) -> None:
    language, size = config.language, config.vision.image_size
    first = config.candidate_resolutions[0]
    wanted = f"the tower's image_size {(size, size)}"
    _require(first == (size, size), where, "candidate_resolutions[0]", first, wanted)
    n_embed, input_dim = config.projector.n_embed, config.projector.input_dim
    wanted = f"hidden_size {language.hidden_size}"
    _require(n_embed == language.hidden_size, where, "projector_config.n_embed", n_embed, wanted)
    wanted = f"vision width {config.vision.width}"
    _require(input_dim == config.vision.width, where, "projector_config.input_dim", input_dim, wanted)
    _check_sizes(config, where)
    if language.n_routed_experts is not None:
        _check_experts(language, where)
    rope = language.rope_scaling
    mha_yarn = not language.use_mla and isinstance(rope, YarnConfig)
    _require(not mha_yarn, where, "language_config.rope_scaling.type", "yarn", '"linear" where use_mla is false')


def _check_sizes(config: ModelConfig, where: str) -> None:
    vision, language = config.vision, config.language
    used = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    used += ["moe_layer_freq", "max_position_embeddings"]
    used += ["kv_lora_rank", "qk_rope_head_dim", "v_head_dim"] if language.use_mla else ["num_key_value_heads"]
    for section, values, keys in (
        ("vision_config", vision, ("image_size", "patch_size", "width", "layers", "heads")),
        ("projector_config", config.projector, ("depth", "mlp_ratio", "downsample_ratio")),
        ("language_config", language, used),
    ):
        for key in keys:
            _require(getattr(values, key) >= 1, where, f"{section}.{key}", getattr(values, key), "at least 1")
    for key in ("bos_token_id", "eos_token_id"):
        index = getattr(language, key)
        wanted = f"an id below vocab_size {language.vocab_size}"
        _require(index is None or 0 <= index < language.vocab_size, where, f"language_config.{key}", index, wanted)
    _require(vision.grid_side >= 1, where, "vision_config.patch_size", vision.patch_size, "at most image_size")
    _require(vision.width % vision.heads == 0, where, "vision_config.heads", vision.heads, "a divisor of width")
    _check_heads(language, where)
    _check_limits(config, where)


def _check_limits(config: ModelConfig, where: str) -> None:
    most = {"layers": MAX_LAYERS, "num_hidden_layers": MAX_LAYERS, "depth": MAX_LAYERS, "n_routed_experts": MAX_EXPERTS}
    for name in ("vision", "projector", "language"):
        section = getattr(config, name)
        for field in fields(section):
            value, key = getattr(section, field.name), f"{name}_config.{field.name}"
            if isinstance(value, int | float):
                _require(value >= 0, where, key, value, "at least 0")
                limit = most.get(field.name, value)
                _require(value <= limit, where, key, value, f"at most {limit}")
    rope_theta = config.language.rope_theta
    _require(rope_theta > 0, where, "language_config.rope_theta", rope_theta, "more than 0")


def _check_heads(language: LanguageConfig, where: str) -> None:
    heads, kv_heads = language.num_attention_heads, language.num_key_value_heads
    if language.use_mla:
        width = language.qk_rope_head_dim
        _require(width % 2 == 0, where, "language_config.qk_rope_head_dim", width, "an even number")
        return
    fits = language.hidden_size % heads == 0 and language.head_dim % 2 == 0
    wanted = f"hidden_size {language.hidden_size} in heads of an even width"
    _require(fits, where, "language_config.num_attention_heads", heads, wanted)
    wanted = f"a divisor of num_attention_heads {heads}"
    _require(heads % kv_heads == 0, where, "language_config.num_key_value_heads", kv_heads, wanted)


def _check_experts(language: LanguageConfig, where: str) -> None:
    experts, groups, per_token = language.n_routed_experts or 0, language.n_group, language.num_experts_per_tok
    for key in ("n_routed_experts", "moe_intermediate_size", "n_group"):
        _require(getattr(language, key) >= 1, where, f"language_config.{key}", getattr(language, key), "at least 1")
    wanted = f"1 to n_routed_experts {experts}"
    _require(1 <= per_token <= experts, where, "language_config.num_experts_per_tok", per_token, wanted)
    if language.topk_method == "greedy":
        return
    _require(experts % groups == 0, where, "language_config.n_group", groups, f"a divisor of {experts} experts")
    wanted = f"1 to n_group {groups}"
    _require(1 <= language.topk_group <= groups, where, "language_config.topk_group", language.topk_group, wanted)
    enough = language.topk_method != "noaux_tc" or experts // groups >= 2
    _require(enough, where, "language_config.n_group", groups, "groups of at least two experts for noaux_tc")


def _section(raw: Mapping[str, Any], key: str, where: str, prefix: str = "") -> Mapping[str, Any]:
    """An object of the file; empty where it is absent or null."""
    section = raw.get(key)
    _require(section is None or isinstance(section, Mapping), where, prefix + key, section, "an object")
    return section or {}


def _pick(cls: type, raw: Mapping[str, Any], where: str, section: str = "", **ready: object) -> Any:
    """Reads the fields of `cls` that are not `ready`.

    null stands for the default where the field itself cannot be None: published files hold it for keys they do not use.
    """
    values = dict(ready)
    for field in fields(cls):
        if field.name in ready:
            continue
        accepted = get_args(field.type) or (field.type,)
        value, key = raw.get(field.name), f"{section}.{field.name}".lstrip(".")
        if field.name not in raw or (value is None and type(None) not in accepted):
            _require(field.default is not MISSING, where, key, None, "it set")
            continue
        wanted = " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in accepted)
        _require(_fits(value, accepted), where, key, value, f"a value of type {wanted}")
        values[field.name] = value
    return cls(**values)


_KIND_NAMES = {type(None): "null", float: "finite float"}


def _fits(value: object, accepted: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):  # which is an int to Python
        return bool in accepted
    if isinstance(value, int | float) and float in accepted:
        return abs(value) < sys.float_info.max  # which neither infinity nor nan is
    return isinstance(value, accepted)


def _resolutions(raw: Any, where: str) -> tuple[tuple[int, int], ...]:
    wanted = "pairs of pixels, at least one"
    try:
        resolutions = tuple((int(width), int(height)) for width, height in raw)
    except (TypeError, ValueError):
        resolutions = ()
    _require(bool(resolutions) and min(map(min, resolutions)) >= 1, where, "candidate_resolutions", raw, wanted)
    size = resolutions[0][0]
    whole = resolutions[0] == (size, size) and all(side % size == 0 for pair in resolutions for side in pair)
    _require(whole, where, "candidate_resolutions", raw, "multiples of a square first entry")
    most_tiles = max(width // size * (height // size) for width, height in resolutions)
    wanted = f"at most {MAX_TILES} tiles of at most {MAX_TILE_SIZE} pixels a side"
    _require(size <= MAX_TILE_SIZE and most_tiles <= MAX_TILES, where, "candidate_resolutions", raw, wanted)
    return resolutions


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is missing: a checkpoint folder in the Hugging Face layout has one") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the download may be incomplete") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, not an object")
    return raw


def _require(ok: bool, where: str, key: str, value: object, wanted: str) -> None:
    if not ok:
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise ValueError(f"{where}: {key} is {shown}, but this model needs {wanted}")
