"""The checkpoint's `config.json` and `processor_config.json` -> typed configuration; the only reader of foreign keys.

Knows no tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import (
    LanguageConfig,
    LinearRopeConfig,
    ModelConfig,
    ProcessorConfig,
    ProjectorConfig,
    VisionConfig,
    YarnConfig,
)
from model.config_checks import MAX_TILE_SIZE, MAX_TILES, check_model
from model.config_values import pick, read_json, require, section_of


def load_model_config(folder: Path) -> ModelConfig:
    """Reads `config.json`. Raises ValueError naming the key for anything this implementation would compute wrongly."""
    path = folder / "config.json"
    return parse_model_config(read_json(path), str(path))


def parse_model_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The content of a `config.json`; `where` names it in the ValueError that `load_model_config` speaks of."""
    require(raw.get("tile_tag", "tile_tag") == "2D", where, "tile_tag", raw.get("tile_tag"), '"2D"')
    position = raw.get("global_view_pos", "head")
    require(position in ("head", "tail"), where, "global_view_pos", position, '"head" or "tail"')
    projector = section_of(raw, "projector_config", where)
    kind = projector.get("projector_type", "downsample_mlp_gelu")
    require(kind == "downsample_mlp_gelu", where, "projector_config.projector_type", kind, "downsample_mlp_gelu")
    vision = section_of(raw, "vision_config", where)
    require(not vision.get("class_token", False), where, "vision_config.class_token", True, "false")
    config = ModelConfig(
        vision=pick(VisionConfig, vision, where, "vision_config"),
        projector=pick(ProjectorConfig, projector, where, "projector_config"),
        language=_language_config(section_of(raw, "language_config", where), where),
        candidate_resolutions=_resolutions(raw.get("candidate_resolutions", [(384, 384)]), where),
        global_view_first=position == "head",
    )
    check_model(config, where)
    return config


def load_processor_config(folder: Path) -> ProcessorConfig:
    """Reads `processor_config.json`. Raises ValueError naming the key, as `load_model_config` does."""
    where = str(folder / "processor_config.json")
    raw = {key: value for key, value in read_json(Path(where)).items() if value is not None}
    sft_format = raw.get("sft_format", "deepseek")
    require(sft_format == "deepseek", where, "sft_format", sft_format, "deepseek")
    require(raw.get("normalize", True) is True, where, "normalize", raw.get("normalize"), "true")
    for key in ("image_mean", "image_std"):
        level = raw.get(key, [0.5])
        require(level in ([0.5], [0.5, 0.5, 0.5]), where, key, level, "0.5 for every channel")
    resolutions = _resolutions(raw.pop("candidate_resolutions", None), where)
    config = pick(ProcessorConfig, raw, where, candidate_resolutions=resolutions, image_mean=0.5, image_std=0.5)
    for key in ("patch_size", "downsample_ratio"):
        require(getattr(config, key) >= 1, where, key, getattr(config, key), "at least 1")
    return config


def require_agreement(model: ModelConfig, processor: ProcessorConfig, folder: Path) -> None:
    """Raises ValueError where the processor would make tiles or image positions that the model does not compute."""
    where = str(folder / "processor_config.json")
    for key, mine, theirs in (
        ("candidate_resolutions[0]", processor.candidate_resolutions[0], model.candidate_resolutions[0]),
        ("patch_size", processor.patch_size, model.vision.patch_size),
        ("downsample_ratio", processor.downsample_ratio, model.projector.downsample_ratio),
    ):
        require(mine == theirs, where, key, mine, f"{theirs} as in config.json")


def _language_config(raw: Mapping[str, Any], where: str) -> LanguageConfig:
    raw = {**raw}
    scaling = section_of(raw, "rope_scaling", where, "language_config.")
    for key, allowed in {
        "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
        "scoring_func": ("softmax", "sigmoid"),
        "hidden_act": ("silu",),
        "tie_word_embeddings": (False,),
    }.items():
        if key in raw:
            require(raw[key] in allowed, where, f"language_config.{key}", raw[key], " or ".join(map(str, allowed)))
    if raw.get("num_key_value_heads") is None:
        raw["num_key_value_heads"] = raw.get("num_attention_heads", LanguageConfig.num_attention_heads)
    if raw.get("n_routed_experts") is not None:
        require("topk_method" in raw, where, "language_config.topk_method", None, "set: it has no usable default")
    return pick(LanguageConfig, raw, where, "language_config", rope_scaling=_rope_scaling(scaling, where))


def _rope_scaling(raw: Mapping[str, Any], where: str) -> YarnConfig | LinearRopeConfig | None:
    if not raw:
        return None
    kind = raw.get("type", raw.get("rope_type"))
    require(kind in ("yarn", "linear"), where, "language_config.rope_scaling.type", kind, '"yarn" or "linear"')
    rope = pick(YarnConfig if kind == "yarn" else LinearRopeConfig, raw, where, "language_config.rope_scaling")
    require(rope.factor >= 1, where, "language_config.rope_scaling.factor", rope.factor, "at least 1")
    return rope


def _resolutions(raw: Any, where: str) -> tuple[tuple[int, int], ...]:
    wanted = "pairs of pixels, at least one"
    try:
        resolutions = tuple((int(width), int(height)) for width, height in raw)
    except (TypeError, ValueError):
        resolutions = ()
    require(bool(resolutions) and min(map(min, resolutions)) >= 1, where, "candidate_resolutions", raw, wanted)
    size = resolutions[0][0]
    whole = resolutions[0] == (size, size) and all(side % size == 0 for pair in resolutions for side in pair)
    require(whole, where, "candidate_resolutions", raw, "multiples of a square first entry")
    most_tiles = max(width // size * (height // size) for width, height in resolutions)
    wanted = f"at most {MAX_TILES} tiles of at most {MAX_TILE_SIZE} pixels a side"
    require(size <= MAX_TILE_SIZE and most_tiles <= MAX_TILES, where, "candidate_resolutions", raw, wanted)
    return resolutions
