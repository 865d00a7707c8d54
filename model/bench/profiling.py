"""Traces of one prefill and one decode phase: chrome traces, and tables of the 20 costliest operations."""

import asyncio
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from model.bench.measure import EngineBench

_DECODE_S = 0.5
"""Of decoding in a trace: a thousand kernels a step make large files."""


def profile_phases(
    bench: EngineBench, folder: Path, *, num_prompt_tokens: int, num_decode_tokens: int, prefill_s: float
) -> None:
    """Writes prefill.json, prefill.txt, decode.json and decode.txt into the folder, which is made where it is missing.

    Args:
        num_decode_tokens: how long answers may become while decode is traced; it is cut off after half a second.
        prefill_s: what prefill of a batch of such prompts took before; the trace of decode begins at twice that.

    Raises RuntimeError where decode was over by then.
    """
    folder.mkdir(exist_ok=True)
    with _profiler(bench) as prefill:
        bench.answer_texts(num_prompt_tokens, 1)
    _write(prefill, folder, "prefill")
    decode = asyncio.run(_trace_decode(bench, num_prompt_tokens, num_decode_tokens, 2 * prefill_s))
    _write(decode, folder, "decode")


async def _trace_decode(bench: EngineBench, num_prompt_tokens: int, num_decode_tokens: int, delay_s: float) -> profile:
    params: dict[str, Any] = {"max_new_tokens": num_decode_tokens, "ignore_eos": True}
    async with bench.engine.open([]) as view:
        answers = [asyncio.create_task(view.generate(text, **params)) for text in bench.texts(num_prompt_tokens)]
        await asyncio.sleep(delay_s)
        with _profiler(bench) as decode:
            await asyncio.wait(answers, timeout=_DECODE_S)
        for answer in answers:
            answer.cancel()
        for outcome in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
    return decode


def _profiler(bench: EngineBench) -> profile:
    """Sees the engine's thread, too, which runs before the profiler begins."""
    activities = [ProfilerActivity.CPU]
    if bench.engine.model.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    all_threads = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    return profile(activities=activities, experimental_config=all_threads)


def _write(profiled: profile, folder: Path, phase: str) -> None:
    averages = profiled.key_averages()
    if not averages:
        raise RuntimeError(f"the {phase} phase was over before the profiler saw it: raise --output-tokens")
    by = "self_device_time_total" if ProfilerActivity.CUDA in profiled.activities else "self_cpu_time_total"
    profiled.export_chrome_trace(str(folder / f"{phase}.json"))
    (folder / f"{phase}.txt").write_text(averages.table(sort_by=by, row_limit=20) + "\n", encoding="utf-8")
