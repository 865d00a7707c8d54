"""Traces of one prefill and one decode phase: chrome traces, and tables of the 20 costliest operations."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from model.bench.measure import EngineBench, PhaseTimes

_MAX_DECODE_S = 0.5
"""Of decoding in a trace: a thousand kernels a step make large files."""


def profile_phases(bench: EngineBench, num_prompt_tokens: int, times: PhaseTimes, folder: Path) -> None:
    """Writes prefill.json, prefill.txt, decode.json and decode.txt into the folder, which is made where it is missing.

    Args:
        times: what the phases took before; decode is caught in the middle of a run, which they say when to expect.
    """
    folder.mkdir(exist_ok=True)
    with _profiler(bench) as prefill:
        bench.answer_texts(num_prompt_tokens, 1)
    _write(prefill, folder, "prefill")
    _write(_decode_profile(bench, num_prompt_tokens, times), folder, "decode")


def _decode_profile(bench: EngineBench, num_prompt_tokens: int, times: PhaseTimes) -> profile:
    requests = bench.requests(num_prompt_tokens, bench.output_tokens)
    decode_s = min(times.decode_s)
    with ThreadPoolExecutor(max_workers=1) as pool:
        run = pool.submit(bench.engine.generate, requests)
        time.sleep(times.prefill_s + decode_s / 4)
        decode = _profiler(bench)
        with decode:
            time.sleep(min(decode_s / 2, _MAX_DECODE_S))
        run.result()
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
