"""safetensors in the published layout -> parameters of the model; total, or an error that names the tensor.

The only file that knows checkpoint keys. Reads tensors lazily, shard by shard; no pickle, no remote code.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.checkpoint_files import local_folder
from model.config import ModelConfig
from model.config_files import load_model_config
from model.deepseek_vl2 import DeepseekVL2
from model.expert_share import WHOLE, ExpertShare

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

_RENAMES = (  # ours -> the checkpoint's, in order
    (re.compile(r"^vision\.patch_embed\."), "vision.patch_embed.proj."),
    (re.compile(r"^(vision\.blocks\.\d+)\.(fc[12])\."), r"\1.mlp.\2."),
    (re.compile(r"^view_separator$"), "view_seperator"),
    (re.compile(r"^language\.(?!lm_head)"), "language.model."),
)
_PROJECTOR_LAYER = re.compile(r"^projector\.layers\.(\d+)\.")
_UNUSED = re.compile(r"^vision\.attn_pool\.|\.rotary_emb\.inv_freq$")
"""Tensors that published checkpoints carry and the reference never reads."""

_OF_ROUTED_EXPERTS = ".experts."
"""In the names of the parameters that ranks divide among them."""

_KEPT_IN_FLOAT32 = re.compile(r"\.mlp\.gate\.")
"""The router computes in float32 whatever the model's dtype; keeping it so costs a few MB and saves the casts."""


@dataclass(kw_only=True)
class Reading:
    num_bytes: int = 0
    """Of tensors, as they are stored."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One checkpoint tensor and the rows of a parameter (or of one expert in it) that it fills."""

    key: str
    parameter: str
    shape: tuple[int, ...]
    expert: int | None = None
    first_row: int = 0

    def of(self, parameter: Tensor, *, first_expert: int = 0) -> Tensor:
        """The view of the parameter that this tensor fills; `first_expert` is the first that the parameter holds."""
        whole = parameter if self.expert is None else parameter[self.expert - first_expert]
        return whole[self.first_row : self.first_row + self.shape[0]]


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    share: ExpertShare = WHOLE,
    reading: Reading | None = None,
) -> DeepseekVL2:
    """Loads a checkpoint for inference (parameters do not require gradients).

    Args:
        path: "nano", a folder, `s3://bucket/prefix` or a hub id; see `model.checkpoint_files.local_folder`.
        dtype: of activations and weights; the router's stay float32.
        share: the routed experts to hold; of the others no weight is read.
        reading: counts what is read.

    Raises ValueError naming the file or tensor that is missing, left over, misshapen, not finite or unreadable.
    """
    folder = local_folder(path)
    config = load_model_config(folder)
    files = _TensorFiles(folder)
    parts = _parts_of(config, folder)
    _check_total(parts, files)
    model = allocate(config, device=device, dtype=dtype, share=share)
    parameters = dict(model.named_parameters())
    held = share.experts(config.language.n_routed_experts or 0)
    wanted = [part for part in parts.values() if part.expert is None or part.expert in held]
    for part, tensor in files.read(wanted):
        if reading is not None:
            reading.num_bytes += tensor.nbytes
        part.of(parameters[part.parameter], first_expert=held.start).copy_(tensor)
    return model


def allocate(
    config: ModelConfig, *, device: str | torch.device, dtype: torch.dtype, share: ExpertShare = WHOLE
) -> DeepseekVL2:
    """The model with parameters on the device whose values are yet to be written; routers are float32."""
    model = _on_meta(config)
    for name, parameter in list(model.named_parameters()):
        kept = torch.float32 if _KEPT_IN_FLOAT32.search(name) else dtype
        shape = list(parameter.shape)
        if _OF_ROUTED_EXPERTS in name:
            shape[0] = len(share.experts(shape[0]))
        _assign(model, name, torch.empty(shape, dtype=kept, device=device))
    return model.eval()


def parameter_bytes(config: ModelConfig, dtype: torch.dtype) -> Iterator[tuple[int, bool]]:
    """(bytes, whether it is of routed experts) of every parameter, in memory; without a checkpoint."""
    for name, parameter in _on_meta(config).named_parameters():
        kept = torch.float32 if _KEPT_IN_FLOAT32.search(name) else dtype
        yield parameter.numel() * kept.itemsize, _OF_ROUTED_EXPERTS in name


def check(path: str | Path) -> ModelConfig:
    """Everything `load` checks that can be known from configuration and headers, without reading a weight."""
    folder = local_folder(path)
    config = load_model_config(folder)
    _check_total(_parts_of(config, folder), _TensorFiles(folder))
    return config


def checkpoint_tensors(model: DeepseekVL2) -> dict[str, Tensor]:
    """The model's parameters under the checkpoint's keys: what `load` reads back."""
    parameters = dict(model.named_parameters())
    return {
        key: part.of(parameters[part.parameter]).detach().contiguous() for key, part in _parts_of(model.config).items()
    }


def _parts_of(config: ModelConfig, where: object = "the model") -> dict[str, _Part]:
    """Every tensor that a checkpoint of this configuration must hold, by key; `where` names it in an error."""
    try:
        model = _on_meta(config)
    except (RuntimeError, TypeError, OverflowError) as error:  # three ways of torch to say: too large
        reason = str(error).splitlines()[0]
        raise ValueError(f"{where}: config.json describes a model that no machine can hold ({reason})") from None
    parts = [part for name, parameter in model.named_parameters() for part in _split(name, tuple(parameter.shape))]
    return {part.key: part for part in parts}


def _on_meta(config: ModelConfig) -> DeepseekVL2:
    with torch.device("meta"), _WithoutInit():
        return DeepseekVL2(config)


class _WithoutInit(TorchFunctionMode):
    """Leaves parameters as they are made. Drawing random weights for the meta device imports torch's compiler and
    sympy: a second and 75 MB, on the driver of a run too."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _split(name: str, shape: tuple[int, ...]) -> Iterator[_Part]:
    """Our parameters hold gate and up in one matrix and all experts in one stack; the checkpoint has them apart."""
    key = _PROJECTOR_LAYER.sub(lambda match: f"projector.layers.{2 * int(match[1])}.", name)  # activations count there
    for pattern, replacement in _RENAMES:
        key = pattern.sub(replacement, key)
    if _OF_ROUTED_EXPERTS not in key:
        yield from _split_gate_up(key, name, shape, None)
        return
    layer, matrix = key.split(_OF_ROUTED_EXPERTS)
    for expert in range(shape[0]):
        yield from _split_gate_up(f"{layer}.experts.{expert}.{matrix}.weight", name, shape[1:], expert)


def _split_gate_up(key: str, name: str, shape: tuple[int, ...], expert: int | None) -> Iterator[_Part]:
    if "gate_up_proj" not in key:
        yield _Part(key=key, parameter=name, shape=shape, expert=expert)
        return
    width = shape[0] // 2
    for matrix, first_row in (("gate_proj", 0), ("up_proj", width)):
        half = (width, *shape[1:])
        part_key = key.replace("gate_up_proj", matrix)
        yield _Part(key=part_key, parameter=name, shape=half, expert=expert, first_row=first_row)


def _check_total(parts: dict[str, _Part], files: "_TensorFiles") -> None:
    shapes = files.shapes()
    missing = sorted(parts.keys() - shapes.keys())
    if missing:
        raise ValueError(f"{files.folder}: tensor {missing[0]!r} is missing{_and_more(missing)}")
    left_over = sorted(key for key in shapes.keys() - parts.keys() if not _UNUSED.search(key))
    if left_over:
        raise ValueError(
            f"{files.folder}: tensor {left_over[0]!r} is left over{_and_more(left_over)}: "
            "config.json describes a model that has no place for it"
        )
    for key, part in parts.items():
        if shapes[key] != part.shape:
            raise ValueError(
                f"{files.folder}: tensor {key!r} has shape {list(shapes[key])}, config.json asks for {list(part.shape)}"
            )


def _and_more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=False))


class _TensorFiles:
    """The safetensors files of a folder: which tensors they hold, and their values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = self._list_files()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    for key in tensors.keys():  # noqa: SIM118 - not a dict
                        if key in shapes:
                            raise ValueError(f"{file}: tensor {key!r} is also in another file of the folder")
                        shapes[key] = tuple(tensors.get_slice(key).get_shape())
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} cannot be read ({error}): fetch it again") from None
        return shapes

    def read(self, parts: list[_Part]) -> Iterator[tuple[_Part, Tensor]]:
        """Each part with its tensor (CPU, stored dtype), file by file so that each is opened once."""
        wanted = {part.key: part for part in parts}
        for file in self._files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    for key in tensors.keys():  # noqa: SIM118 - not a dict
                        if key in wanted:
                            yield wanted[key], self._checked(file, key, tensors.get_tensor(key))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} cannot be read ({error}): fetch it again") from None

    @staticmethod
    def _checked(file: Path, key: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise ValueError(f"{file}: tensor {key!r} has dtype {tensor.dtype}; bfloat16, float16 or float32 is needed")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{file}: tensor {key!r} holds values that are not finite: the file is damaged")
        return tensor

    def _list_files(self) -> list[Path]:
        index = self.folder / INDEX_FILE
        if not index.exists():
            single = self.folder / SINGLE_FILE
            if not single.exists():
                raise ValueError(
                    f"{self.folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}: weights in any other format "
                    "(.bin, .pt, .pth) could hold code, and are not read"
                )
            return [single]
        try:
            names = sorted({Path(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"{index} is not an index of safetensors files ({error!r})") from None
        for name in names:
            if len(name.parts) != 1 or name.name == "..":
                raise ValueError(f"{index} names {str(name)!r}: weight files lie in the checkpoint's own folder")
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder / name} is missing, but {INDEX_FILE} names it: fetch it again")
        return [self.folder / name for name in names]
