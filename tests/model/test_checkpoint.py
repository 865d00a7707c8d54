"""A checkpoint is loaded whole, or refused with the name of the tensor or file that is wrong."""

import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import checkpoint as checkpoints
from model.checkpoint import INDEX_FILE, SINGLE_FILE, check, checkpoint_tensors
from tests import golden
from tests.model.helpers import copy_checkpoint, edit_json, golden_tensors, load, write_single_file

NAME = "base-like"
KEY = "language.model.layers.1.mlp.experts.3.up_proj.weight"
BIAS = "language.model.layers.1.mlp.gate.e_score_correction_bias"
FIRST, LAST = "model-00001-of-000003.safetensors", "model-00003-of-000003.safetensors"

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_checkpoint(NAME, tmp_path / "checkpoint")


def logits(model: torch.nn.Module) -> Tensor:
    return model.logits(golden.prompt(NAME, "text_only"))


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_saving_and_loading_gives_every_tensor_back(name: str, tmp_path: Path):
    original = {key: tensor.float() for key, tensor in golden_tensors(name).items() if "attn_pool" not in key}
    tensors = checkpoint_tensors(load(name))
    assert tensors.keys() == original.keys()
    assert all(torch.equal(tensors[key], original[key]) for key in original)
    again = checkpoint_tensors(checkpoints.load(write_single_file(name, tmp_path / "copy", tensors)))
    assert all(torch.equal(again[key], original[key]) for key in original)


def test_loaded_model_is_for_inference():
    model = load(NAME)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_single_file_gives_the_same_model_as_shards(tmp_path: Path):
    model = checkpoints.load(write_single_file(NAME, tmp_path / "copy", golden_tensors(NAME)))
    assert torch.equal(logits(model), logits(load(NAME)))


def test_attention_pool_and_stored_frequencies_are_ignored(tmp_path: Path):
    """Published checkpoints carry them, and the reference never reads them."""
    unused = {
        "vision.attn_pool.latent": torch.ones(1, 1, 48),
        "language.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    model = checkpoints.load(write_single_file(NAME, tmp_path / "copy", golden_tensors(NAME) | unused))
    assert torch.equal(logits(model), logits(load(NAME)))


def test_bfloat16_model_keeps_its_router_in_float32():
    model = checkpoints.load(golden.checkpoint_folder(NAME), dtype=torch.bfloat16)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    in_float32 = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert in_float32 == {name for name in dtypes if ".mlp.gate." in name}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    assert model.dtype == torch.bfloat16
    assert logits(model).dtype == torch.float32
    assert (logits(model) - logits(load(NAME))).abs().mean() < 0.1


@pytest.mark.parametrize("stored", [torch.float16, torch.float32], ids=str)
def test_checkpoint_stored_in_another_dtype_loads(tmp_path: Path, stored: torch.dtype):
    tensors = {key: tensor.to(stored) for key, tensor in golden_tensors(NAME).items()}
    model = checkpoints.load(write_single_file(NAME, tmp_path / "copy", tensors))
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), logits(load(NAME)), atol=2e-2, rtol=0)


def misshape(tensors: Tensors) -> None:
    tensors[KEY] = tensors[KEY][:-1].clone()


def make_infinite(tensors: Tensors) -> None:
    tensors[KEY][0, 0] = float("inf")


def make_nan(tensors: Tensors) -> None:
    tensors[BIAS][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(KEY), f"tensor '{KEY}' is missing"),
        (lambda tensors: tensors.pop(BIAS), f"tensor '{BIAS}' is missing"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "tensor 'extra' is left over"),
        (misshape, rf"tensor '{KEY}' has shape \[39, 64\], config.json asks for \[40, 64\]"),
        (make_infinite, f"tensor '{KEY}' holds values that are not finite"),
        (make_nan, f"tensor '{BIAS}' holds values that are not finite"),
        (lambda tensors: tensors.update({KEY: tensors[KEY].long()}), f"tensor '{KEY}' has dtype torch.int64"),
        (
            lambda tensors: tensors.update({KEY: tensors[KEY].to(torch.float8_e4m3fn)}),
            f"tensor '{KEY}' has dtype torch.float8_e4m3fn",
        ),
    ],
    ids=["missing", "no bias", "left over", "misshapen", "infinite", "not a number", "integers", "8-bit floats"],
)
def test_tensor_that_is_wrong_is_named(tmp_path: Path, change: Callable[[Tensors], None], message: str):
    tensors = golden_tensors(NAME)
    change(tensors)
    folder = write_single_file(NAME, tmp_path / "copy", tensors)
    with pytest.raises(ValueError, match=message) as raised:
        checkpoints.load(folder)
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


def test_many_missing_tensors_are_counted(tmp_path: Path):
    tensors = {key: tensor for key, tensor in golden_tensors(NAME).items() if ".experts.3." not in key}
    with pytest.raises(ValueError, match=r"experts.3.down_proj.weight' is missing \(and 5 more\)"):
        checkpoints.load(write_single_file(NAME, tmp_path / "copy", tensors))


def test_tensor_in_two_shards_is_named(folder: Path):
    first, last = load_file(folder / FIRST), load_file(folder / LAST)
    key = sorted(first)[0]
    save_file(last | {key: first[key]}, folder / LAST)
    with pytest.raises(ValueError, match=f"{LAST}: tensor '{key}' is also in another file"):
        checkpoints.load(folder)


@pytest.mark.parametrize("kept_bytes", [0, 5, 3000, -1], ids=["empty", "in the size", "in the header", "in the data"])
def test_file_that_is_cut_off_is_named(folder: Path, kept_bytes: int):
    whole = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(whole[:kept_bytes])
    with pytest.raises(ValueError, match=f"{FIRST} cannot be read .*fetch it again"):
        checkpoints.load(folder)


def test_file_that_is_no_safetensors_file_is_named(folder: Path):
    (folder / FIRST).write_bytes(b"<html>404 not found</html>" * 10)
    with pytest.raises(ValueError, match=f"{FIRST} cannot be read"):
        checkpoints.load(folder)


@pytest.mark.parametrize("replacement", ["nothing", "a folder"])
def test_shard_that_is_not_there_is_named(folder: Path, replacement: str):
    (folder / LAST).unlink()
    if replacement == "a folder":
        (folder / LAST).mkdir()
    with pytest.raises(ValueError, match=f"{LAST} is missing, but {INDEX_FILE} names it"):
        checkpoints.load(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"a":' * 100_000,
        "[]",
        "{}",
        '{"weight_map": null}',
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": 1}}',
        "\x80",
    ],
    ids=lambda content: content[:20],
)
def test_garbage_in_the_index_is_named(folder: Path, content: str):
    (folder / INDEX_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{INDEX_FILE} is not an index of safetensors files"):
        checkpoints.load(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "..", "/tmp/x.safetensors", "inside/x.safetensors", "", "."])
def test_index_cannot_name_files_outside_of_the_folder(folder: Path, name: str):
    (folder.parent / "secret.safetensors").write_bytes((folder / FIRST).read_bytes())
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="weight files lie in the checkpoint's own folder"):
        checkpoints.load(folder)


def test_folder_without_weights_is_named(folder: Path):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(ValueError, match=f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}"):
        checkpoints.load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.pkl"])
def test_weights_that_could_hold_code_are_never_opened(folder: Path, name: str):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    marker = folder.parent / "code-ran"
    (folder / name).write_bytes(pickle.dumps(Marker(str(marker))))
    for read in (check, checkpoints.load):
        with pytest.raises(ValueError, match=r"holds neither .*\.bin, \.pt, \.pth.* are not read") as raised:
            read(folder)
        assert "\n" not in str(raised.value)
    assert not marker.exists()


class Marker:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_marker_would_have_told():
    with tempfile.TemporaryDirectory() as folder:
        pickle.loads(pickle.dumps(Marker(f"{folder}/code-ran")))
        assert Path(folder, "code-ran").exists()


def entry(shape: list[int], first: int, end: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [first, end]}


@pytest.mark.parametrize(
    ("header", "header_bytes"),
    [
        pytest.param({}, 2**63 - 1, id="header of 2^63 bytes"),
        pytest.param({}, 2**64 - 1, id="header of 2^64 bytes"),
        pytest.param({}, 100_000_001, id="header of 100 MB"),
        pytest.param({"x": entry([4], 0, 10**18)}, None, id="data past the end"),
        pytest.param({"x": entry([4], -4, 12)}, None, id="data before the beginning"),
        pytest.param({"x": entry([4], 16, 0)}, None, id="data backwards"),
        pytest.param({"x": entry([4], 0, 16), "y": entry([4], 0, 16)}, None, id="two in one place"),
        pytest.param({"x": entry([2**63, 2**63], 0, 16)}, None, id="shape that overflows"),
        pytest.param({"x": entry([-2, -2], 0, 16)}, None, id="negative shape"),
        pytest.param({"x": entry([10**12], 0, 16)}, None, id="shape larger than its data"),
        pytest.param('{"x":' * 100_000, None, id="deep"),
        pytest.param('{"x": NaN}', None, id="not a number"),
    ],
)
def test_header_that_lies_is_one_line(folder: Path, header: dict | str, header_bytes: int | None):
    content = (header if isinstance(header, str) else json.dumps(header)).encode()
    length = struct.pack("<Q", len(content) if header_bytes is None else header_bytes)
    (folder / FIRST).write_bytes(length + content + bytes(16))
    for read in (check, checkpoints.load):
        with pytest.raises(ValueError, match=f"{FIRST} cannot be read") as raised:
            read(folder)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"language_config.intermediate_size": 10**17},
        {"language_config.intermediate_size": 10**300},
        {"language_config.vocab_size": 10**18},
        {"vision_config.mlp_ratio": 1e300},
    ],
    ids=str,
)
def test_configuration_of_sizes_that_no_tensor_has_is_one_line(folder: Path, change: dict):
    edit_json(folder / "config.json", change)
    with pytest.raises(ValueError, match="describes a model that no machine can hold") as raised:
        check(folder)
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


def test_check_finds_what_headers_tell_and_returns_the_configuration(folder: Path, tmp_path: Path):
    assert check(folder) == load(NAME).config
    tensors = golden_tensors(NAME)
    del tensors[KEY]
    with pytest.raises(ValueError, match=f"tensor '{KEY}' is missing"):
        check(write_single_file(NAME, tmp_path / "damaged", tensors))
