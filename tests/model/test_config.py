"""Configuration files become typed configurations, or an error that names the key."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.config import LinearRopeConfig, YarnConfig
from model.config_files import load_model_config, load_processor_config, require_agreement
from tests import golden
from tests.model.helpers import copy_configuration, edit_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_configuration("base-like", tmp_path / "checkpoint")


def model_config(folder: Path, **change: Any):
    edit_json(folder / "config.json", {key.replace("__", "."): value for key, value in change.items()})
    return load_model_config(folder)


def test_what_the_file_says_is_read(folder: Path):
    config = load_model_config(folder)
    assert (config.language.n_routed_experts, config.language.num_experts_per_tok) == (8, 3)
    assert (config.language.topk_method, config.language.scoring_func) == ("noaux_tc", "sigmoid")
    assert config.language.routed_scaling_factor == 2.0
    assert config.vision.mlp_ratio == 3.7362
    assert config.candidate_resolutions[:2] == ((384, 384), (384, 768))
    assert config.tokens_per_side == 14


def test_absent_keys_have_the_defaults_of_the_reference(tmp_path: Path):
    config = {
        "tile_tag": "2D",
        "vision_config": {"width": 1152, "patch_size": 14},
        "projector_config": {"n_embed": 4096},
        "language_config": {},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = load_model_config(tmp_path)
    assert (read.vision.image_size, read.vision.heads, read.vision.layers) == (384, 16, 24)
    assert (read.projector.depth, read.projector.mlp_ratio, read.projector.downsample_ratio) == (2, 1, 2)
    assert (read.language.hidden_size, read.language.num_hidden_layers, read.language.vocab_size) == (4096, 30, 102400)
    assert (read.language.use_mla, read.language.kv_lora_rank, read.language.q_lora_rank) == (True, 512, 1536)
    assert (read.language.rms_norm_eps, read.language.rope_theta) == (1e-6, 10000.0)
    assert read.language.n_routed_experts is None
    assert (read.candidate_resolutions, read.global_view_first) == (((384, 384),), True)


def test_null_keys_have_the_defaults_too_as_in_published_files(folder: Path):
    """The published tiny checkpoint has null ranks (it does not use MLA); others have null groups and scaling."""
    null = dict.fromkeys(("n_group", "topk_group", "rope_scaling", "rope_theta", "q_lora_rank"))
    language = model_config(folder, **{f"language_config__{key}": None for key in null}).language
    assert (language.n_group, language.topk_group, language.rope_scaling, language.rope_theta) == (1, 1, None, 10000.0)
    assert language.q_lora_rank is None  # here null means something: queries without a latent


@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
def test_every_head_has_its_own_key_where_num_key_value_heads_is_not_set(folder: Path, value: Any):
    assert model_config(folder, language_config__num_key_value_heads=value).language.num_key_value_heads == 4


def test_mla_widths_of_zero_are_fine_where_mla_is_not_used(folder: Path):
    unused = dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 0)
    change = {f"language_config__{key}": value for key, value in unused.items()}
    assert not model_config(folder, language_config__use_mla=False, **change).language.use_mla


def test_rope_scaling_is_read(folder: Path):
    yarn = {"type": "yarn", "factor": 40, "mscale": 0.7, "mscale_all_dim": 0.7, "beta_fast": 32}
    assert model_config(folder, language_config__rope_scaling=yarn).language.rope_scaling == YarnConfig(
        factor=40, mscale=0.7, mscale_all_dim=0.7
    )
    linear = {"type": "linear", "factor": 2.0}
    assert model_config(folder, language_config__rope_scaling=linear).language.rope_scaling == LinearRopeConfig(
        factor=2.0
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tile_tag", "1D"),
        ("tile_tag", ...),
        ("global_view_pos", "middle"),
        ("candidate_resolutions", []),
        ("candidate_resolutions", [384, 384]),
        ("candidate_resolutions", [[384, 384], [500, 384]]),
        ("candidate_resolutions", [[392, 392]]),
        ("projector_config", [1]),
        ("projector_config.projector_type", "linear"),
        ("projector_config.n_embed", 65),
        ("projector_config.input_dim", 49),
        ("candidate_resolutions", [[384, 384], [384 * 10**9, 384]]),
        ("candidate_resolutions", [[10**6, 10**6]]),
        ("projector_config.depth", 0),
        ("projector_config.depth", 10**9),
        ("vision_config.layers", 10**9),
        ("vision_config.mlp_ratio", float("nan")),
        ("vision_config.mlp_ratio", -1.0),
        ("language_config.num_hidden_layers", 10**9),
        ("language_config.n_routed_experts", 10**9),
        ("language_config.n_shared_experts", -1),
        ("language_config.first_k_dense_replace", -1),
        ("language_config.vocab_size", -(10**30)),
        ("language_config.rms_norm_eps", float("nan")),
        ("language_config.rms_norm_eps", -1e-6),
        ("language_config.rope_theta", float("inf")),
        ("language_config.rope_theta", 10**400),
        ("language_config.rope_theta", 0),
        ("language_config.routed_scaling_factor", float("-inf")),
        ("vision_config.class_token", True),
        ("vision_config.heads", 5),
        ("vision_config.patch_size", 400),
        ("vision_config.width", "48"),
        ("language_config.topk_method", "gready"),
        ("language_config.topk_method", ...),
        ("language_config.scoring_func", "tanh"),
        ("language_config.hidden_act", "gelu"),
        ("language_config.tie_word_embeddings", True),
        ("language_config.hidden_size", 64.5),
        ("language_config.use_mla", 1),
        ("language_config.num_experts_per_tok", None),
        ("language_config.num_experts_per_tok", 9),
        ("language_config.n_group", 3),
        ("language_config.n_group", 8),
        ("language_config.topk_group", 2),
        ("language_config.moe_layer_freq", 0),
        ("language_config.kv_lora_rank", 0),
        ("language_config.qk_rope_head_dim", 7),
        ("language_config.eos_token_id", 672),
        ("language_config.eos_token_id", [1, 2]),
        ("language_config.rope_scaling", "yarn"),
    ],
    ids=lambda value: "absent" if value is ... else repr(value) if not isinstance(value, str) else value,
)
def test_refused_value_names_its_key_and_file(folder: Path, key: str, value: Any):
    with pytest.raises(ValueError, match=key.rpartition(".")[2]) as raised:
        model_config(folder, **{key.replace(".", "__"): value})
    assert str(raised.value).startswith(str(folder / "config.json"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("scaling", "key"),
    [
        ({"type": "dynamic", "factor": 2.0}, "rope_scaling.type"),
        ({"type": "yarn"}, "rope_scaling.factor"),
        ({"type": "linear", "factor": 0}, "rope_scaling.factor"),
        ({"type": "linear", "factor": float("nan")}, "rope_scaling.factor"),
    ],
    ids=str,
)
def test_refused_rope_scaling_names_its_key(folder: Path, scaling: dict, key: str):
    with pytest.raises(ValueError, match=key):
        model_config(folder, language_config__rope_scaling=scaling)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"use_mla": False, "rope_scaling": {"type": "yarn", "factor": 2}}, "rope_scaling.type"),
        ({"use_mla": False, "num_key_value_heads": 3}, "num_key_value_heads"),
        ({"use_mla": False, "num_attention_heads": 64, "num_key_value_heads": 64}, "num_attention_heads"),
    ],
    ids=str,
)
def test_what_multi_head_attention_cannot_do_is_refused(folder: Path, change: dict, key: str):
    with pytest.raises(ValueError, match=key):
        model_config(folder, **{f"language_config__{name}": value for name, value in change.items()})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "is not JSON"),
        ('{"a":' * 100_000, "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "JSON"),
        ("[]", "holds list"),
        (b"\xff\xfe{}", "is not JSON"),
    ],
    ids=["missing", "cut off", "very deep", "an endless number", "a list", "not UTF-8"],
)
def test_file_that_is_no_configuration_is_named(folder: Path, content: str | bytes | None, message: str):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        load_model_config(folder)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sft_format", "plain"),
        ("normalize", False),
        ("image_mean", [0.48, 0.46, 0.41]),
        ("image_std", [0.5, 0.5]),
        ("patch_size", ...),
        ("patch_size", None),
        ("downsample_ratio", "2"),
        ("downsample_ratio", 0),
        ("candidate_resolutions", ...),
        ("image_token", 5),
    ],
    ids=lambda value: "absent" if value is ... else str(value),
)
def test_refused_value_of_the_processor_names_its_key_and_file(folder: Path, key: str, value: Any):
    edit_json(folder / "processor_config.json", {key: value})
    with pytest.raises(ValueError, match=key) as raised:
        load_processor_config(folder)
    assert str(raised.value).startswith(str(folder / "processor_config.json"))


def test_absent_keys_of_the_processor_have_the_defaults_of_the_reference(folder: Path):
    absent = dict.fromkeys(("image_token", "pad_token", "sft_format", "image_mean", "normalize"), ...)
    edit_json(folder / "processor_config.json", {**absent, "image_std": None})
    assert load_processor_config(folder).image_token == "<image>"


@pytest.mark.parametrize(
    ("key", "value"), [("patch_size", 16), ("downsample_ratio", 1), ("candidate_resolutions", [[70, 70]])], ids=str
)
def test_processor_of_another_model_is_refused(folder: Path, key: str, value: Any):
    edit_json(folder / "processor_config.json", {key: value})
    with pytest.raises(ValueError, match=rf"processor_config.json: {key}.* as in config.json"):
        require_agreement(load_model_config(folder), load_processor_config(folder), folder)


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_processor_and_model_of_a_checkpoint_agree(name: str):
    folder = golden.checkpoint_folder(name)
    model, processor = load_model_config(folder), load_processor_config(folder)
    require_agreement(model, processor, folder)
    assert model.tokens_per_side == processor.tokens_per_side
