"""How many tokens of KV cache fit a limit on the process's device memory: measured, then calculated."""

import gc

import torch

from model.bench.measure import EngineBench
from model.bench.settings import BenchSettings
from model.bench.workload import GRIDS, PROMPTS
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig
from model.kv_cache import kv_bytes_per_token
from model.prompt import Processor

_DEFAULT_FRACTION = 0.9
"""Of the device's memory, where no limit is given."""
_SPARE_FRACTION = 0.03
"""Of the limit, for what the allocator loses between blocks."""


_PROBE_TOKENS = 16
"""Of each prompt of a full batch; as few as the template and some letters make."""


def affordable_tokens(
    *, limit_bytes: float, taken_bytes: float, bytes_per_token: int, num_wanted: int, num_needed: int
) -> int:
    """As many of the wanted tokens as fit.

    Raises ValueError where not even `num_needed` do, which are those of the longest sequence.
    """
    free_bytes = (1 - _SPARE_FRACTION) * limit_bytes - taken_bytes
    num_tokens = min(num_wanted, int(free_bytes // bytes_per_token))
    if num_tokens < num_needed:
        raise ValueError(
            f"{limit_bytes / 1e9:.1f} GB of device memory have room for {max(0, num_tokens)} tokens of KV cache beside "
            f"{taken_bytes / 1e9:.1f} GB of weights and activations, but one sequence needs {num_needed}: "
            "raise --max-memory-gb or lower --batch"
        )
    return num_tokens


def cuda_cache_tokens(
    model: DeepseekVL2, processor: Processor, settings: BenchSettings, *, prompt_tokens: int, image_tokens: int
) -> int:
    """Tokens for all of a batch's longest sequences, or as many of them as fit.

    A run with a small cache shows what all else takes. Beside that, images wait as embeddings, two for each sequence
    that runs. The allocator is told the limit as well, so that a mistake here is an error, not a larger process.
    """
    device, language = model.device, model.config.language
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    limit_bytes = _DEFAULT_FRACTION * total_bytes
    if settings.max_memory_gb is not None:
        limit_bytes = min(limit_bytes, settings.max_memory_gb * 1e9)
    bytes_per_value = model.dtype.itemsize
    bytes_per_token = kv_bytes_per_token(language, bytes_per_value)
    longest = prompt_tokens + settings.output_tokens
    probe_bytes = _peak_bytes(model, processor, settings.batch, longest) - longest * bytes_per_token
    outside_bytes = bytes_outside_allocator(device)
    waiting_bytes = 3 * settings.batch * image_tokens * language.hidden_size * bytes_per_value
    num_tokens = affordable_tokens(
        limit_bytes=limit_bytes,
        taken_bytes=probe_bytes + outside_bytes + waiting_bytes,
        bytes_per_token=bytes_per_token,
        num_wanted=settings.batch * longest,
        num_needed=longest,
    )
    torch.cuda.set_per_process_memory_fraction((limit_bytes - outside_bytes) / total_bytes, device)
    return num_tokens


def _peak_bytes(model: DeepseekVL2, processor: Processor, batch: int, cache_tokens: int) -> int:
    """What the allocator held at most while an engine with a small cache did every kind of work."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(model.device)
    config = EngineConfig(max_num_sequences=batch, cache_tokens=cache_tokens)
    with Engine(model, processor, config=config) as engine:
        bench = EngineBench(engine, batch=batch, output_tokens=2, repeats=1)
        bench.answer_texts(_PROBE_TOKENS, 2)
        bench.label_images(2, max(GRIDS.values()), PROMPTS, 2)
        bench.vision_tiles_per_s()
    peak = torch.cuda.max_memory_reserved(model.device)
    del engine, bench
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(model.device)
    return peak


def bytes_outside_allocator(device: torch.device) -> int:
    """The CUDA context and the libraries' own, and whatever other processes hold on the device."""
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return max(0, total_bytes - free_bytes - torch.cuda.memory_reserved(device))
