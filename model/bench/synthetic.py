"""A configuration -> a model and a processor that have its shapes and no training."""

import math

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from model.checkpoint import allocate
from model.config import ModelConfig, ProcessorConfig
from model.deepseek_vl2 import DeepseekVL2
from model.prompt import Processor
from model.tokenizer import ASSISTANT, USER, ChatTokenizer

_BOS, _EOS, _IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image>"


def random_model(config: ModelConfig, *, device: str | torch.device, dtype: torch.dtype, seed: int = 0) -> DeepseekVL2:
    """Weights are normal of deviation fan_in^-0.5, drawn on the device in the dtype: 55 GB need no host memory.

    Two exceptions keep tokens apart, so that routers use their experts about evenly, as trained ones do: embeddings
    have deviation 1, and what the L layers add to them is made smaller by (2 L)^-0.5. Otherwise all tokens of a context
    would come to share most of their state, and with it their experts. Norms are 1, biases 0. Routers are float32, as
    `model.checkpoint.load` makes them.
    """
    model = allocate(config, device=device, dtype=dtype)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0, _deviation(name, parameter, config), generator=generator)
    return model


def _deviation(name: str, parameter: Tensor, config: ModelConfig) -> float:
    if name == "language.embed_tokens.weight":
        return 1.0
    fan_in = parameter[0].numel() if parameter.dim() == 4 else parameter.shape[-1]  # 4: the patches' convolution
    adds_to_stream = name.startswith("language.") and ("o_proj" in name or "down_proj" in name)
    num_additions = 2 * config.language.num_hidden_layers if adds_to_stream else 1
    return 1 / math.sqrt(fan_in * num_additions)


def byte_processor(config: ModelConfig) -> Processor:
    """A processor whose tokenizer spells text byte by byte: prompts have a length that can be counted in letters.

    The tokenizer has 261 tokens however many the model has; what the model says beyond them decodes to nothing.
    """
    processor_config = ProcessorConfig(
        candidate_resolutions=config.candidate_resolutions,
        patch_size=config.vision.patch_size,
        downsample_ratio=config.projector.downsample_ratio,
        image_token=_IMAGE,
    )
    letters = [_BOS, _EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (_BOS, _EOS, _IMAGE, USER, ASSISTANT)]
    )
    chat_tokenizer = ChatTokenizer(tokenizer, image_token=_IMAGE, bos_token_id=0, eos_token_id=1)
    return Processor(processor_config, chat_tokenizer)
