"""What a model's configuration must fulfil, so that nothing is computed wrongly or for ever; a ValueError else.

Knows no files but their names.
"""

from dataclasses import fields

from model.config import LanguageConfig, ModelConfig, YarnConfig
from model.config_values import require

MAX_LAYERS, MAX_EXPERTS = 256, 1024
MAX_TILE_SIZE, MAX_TILES = 4096, 256
"""What is larger is a damaged or hostile file, and would take hours or all memory to come to nothing. Other sizes need
no limit: the tensors of the checkpoint must have them."""


def check_model(config: ModelConfig, where: str) -> None:
    language, size = config.language, config.vision.image_size
    first = config.candidate_resolutions[0]
    wanted = f"the tower's image_size {(size, size)}"
    require(first == (size, size), where, "candidate_resolutions[0]", first, wanted)
    n_embed, input_dim = config.projector.n_embed, config.projector.input_dim
    wanted = f"hidden_size {language.hidden_size}"
    require(n_embed == language.hidden_size, where, "projector_config.n_embed", n_embed, wanted)
    wanted = f"vision width {config.vision.width}"
    require(input_dim == config.vision.width, where, "projector_config.input_dim", input_dim, wanted)
    _check_sizes(config, where)
    if language.n_routed_experts is not None:
        _check_experts(language, where)
    rope = language.rope_scaling
    mha_yarn = not language.use_mla and isinstance(rope, YarnConfig)
    require(not mha_yarn, where, "language_config.rope_scaling.type", "yarn", '"linear" where use_mla is false')


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
            require(getattr(values, key) >= 1, where, f"{section}.{key}", getattr(values, key), "at least 1")
    for key in ("bos_token_id", "eos_token_id"):
        index = getattr(language, key)
        wanted = f"an id below vocab_size {language.vocab_size}"
        require(index is None or 0 <= index < language.vocab_size, where, f"language_config.{key}", index, wanted)
    require(vision.grid_side >= 1, where, "vision_config.patch_size", vision.patch_size, "at most image_size")
    require(vision.width % vision.heads == 0, where, "vision_config.heads", vision.heads, "a divisor of width")
    _check_heads(language, where)
    _check_limits(config, where)


def _check_limits(config: ModelConfig, where: str) -> None:
    most = {"layers": MAX_LAYERS, "num_hidden_layers": MAX_LAYERS, "depth": MAX_LAYERS, "n_routed_experts": MAX_EXPERTS}
    for name in ("vision", "projector", "language"):
        section = getattr(config, name)
        for field in fields(section):
            value, key = getattr(section, field.name), f"{name}_config.{field.name}"
            if isinstance(value, int | float):
                require(value >= 0, where, key, value, "at least 0")
                limit = most.get(field.name, value)
                require(value <= limit, where, key, value, f"at most {limit}")
    rope_theta = config.language.rope_theta
    require(rope_theta > 0, where, "language_config.rope_theta", rope_theta, "more than 0")


def _check_heads(language: LanguageConfig, where: str) -> None:
    heads, kv_heads = language.num_attention_heads, language.num_key_value_heads
    if language.use_mla:
        width = language.qk_rope_head_dim
        require(width % 2 == 0, where, "language_config.qk_rope_head_dim", width, "an even number")
        return
    fits = language.hidden_size % heads == 0 and language.head_dim % 2 == 0
    wanted = f"hidden_size {language.hidden_size} in heads of an even width"
    require(fits, where, "language_config.num_attention_heads", heads, wanted)
    wanted = f"a divisor of num_attention_heads {heads}"
    require(heads % kv_heads == 0, where, "language_config.num_key_value_heads", kv_heads, wanted)


def _check_experts(language: LanguageConfig, where: str) -> None:
    experts, groups, per_token = language.n_routed_experts or 0, language.n_group, language.num_experts_per_tok
    for key in ("n_routed_experts", "moe_intermediate_size", "n_group"):
        require(getattr(language, key) >= 1, where, f"language_config.{key}", getattr(language, key), "at least 1")
    wanted = f"1 to n_routed_experts {experts}"
    require(1 <= per_token <= experts, where, "language_config.num_experts_per_tok", per_token, wanted)
    if language.topk_method == "greedy":
        return
    require(experts % groups == 0, where, "language_config.n_group", groups, f"a divisor of {experts} experts")
    wanted = f"1 to n_group {groups}"
    require(1 <= language.topk_group <= groups, where, "language_config.topk_group", language.topk_group, wanted)
    enough = language.topk_method != "noaux_tc" or experts // groups >= 2
    require(enough, where, "language_config.n_group", groups, "groups of at least two experts for noaux_tc")
