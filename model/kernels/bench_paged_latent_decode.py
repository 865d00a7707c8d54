"""Times `paged_latent_decode` beside its plain twin and a plain copy, at DeepSeek-VL2-Small's shapes, on a GPU.

Run `python -m model.kernels.bench_paged_latent_decode --help`. A repeat attends once in each of the layers, which have
caches of their own, as a decode step does: one layer's rows would stay in the L2 cache. The kernel's launches are
replayed from a CUDA graph, the twin is called. Rates count the rows of the contexts, the queries and the results.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.kernels.paged_latent_decode import DecodeBlocks, is_available, paged_latent_decode
from model.kernels.paged_latent_decode_reference import paged_latent_decode_reference
from model.kv_cache import PAGE_TOKENS, pages_for

LATENT_WIDTH, ROTATED_WIDTH = 512, 64
MAX_CONTEXT = 4096
"""Fixes the width of the page table, as in an engine that captures graphs."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one decode step attends to, in every layer."""

    queries_BHW: Tensor
    layer_rows_SW: list[Tensor]
    page_table_BP: Tensor
    context_lens_B: Tensor

    @property
    def bytes_per_layer(self) -> int:
        num_elements = int(self.context_lens_B.sum()) * (LATENT_WIDTH + ROTATED_WIDTH)
        num_elements += self.queries_BHW.numel() + self.queries_BHW[..., :LATENT_WIDTH].numel()
        return num_elements * self.queries_BHW.element_size()

    def attend(self, kernel: Callable[..., Tensor], **more: DecodeBlocks) -> None:
        for rows_SW in self.layer_rows_SW:
            kernel(
                self.queries_BHW,
                rows_SW,
                self.page_table_BP,
                self.context_lens_B,
                page_tokens=PAGE_TOKENS,
                latent_width=LATENT_WIDTH,
                scale=(128 + ROTATED_WIDTH) ** -0.5,
                **more,
            )


def main() -> None:
    arguments = _parse()
    if not (torch.cuda.is_available() and is_available(torch.device("cuda"))):
        print("bench_paged_latent_decode needs a GPU with CUDA, and triton; there is nothing to time here")
        return
    blocks = _blocks(arguments)
    copy_gb_per_s = _copy_gb_per_s(arguments.repeats)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.heads} heads, {blocks}")
    print(f"a copy moves {copy_gb_per_s:.0f} GB/s, read and written")
    print(f"{'batch':>6} {'context':>8} {'lengths':>8} {'kernel us':>10} {'GB/s':>6} {'of copy':>8} {'twin us':>9}")
    for batch in arguments.batch:
        for context in arguments.context:
            for ragged in (False, True):
                step = _step(batch, context, ragged=ragged, heads=arguments.heads, num_layers=arguments.layers)
                kernel_us, twin_us = (
                    seconds / arguments.layers * 1e6 for seconds in _time(step, blocks, arguments.repeats)
                )
                gb_per_s = step.bytes_per_layer / kernel_us / 1e3
                print(
                    f"{batch:>6} {context:>8} {'ragged' if ragged else 'equal':>8} {kernel_us:>10.1f} {gb_per_s:>6.0f} "
                    f"{gb_per_s / copy_gb_per_s:>8.0%} {twin_us:>9.1f}"
                )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="sequences")
    parser.add_argument("--context", type=int, nargs="+", default=[450, 2000], help="mean tokens, ragged by half of it")
    parser.add_argument("--heads", type=int, default=16, help="16 for Small, 32 for the 27B model")
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--repeats", type=int, default=20, help="medians are printed")
    for name in ("tokens", "split-tokens", "num-warps", "num-stages"):
        parser.add_argument(f"--{name}", type=int, help=f"overrides DecodeBlocks.{name.replace('-', '_')}")
    return parser.parse_args()


def _blocks(arguments: argparse.Namespace) -> DecodeBlocks:
    names = ("tokens", "split_tokens", "num_warps", "num_stages")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(DecodeBlocks.choose(arguments.heads, torch.bfloat16), **given)


def _step(batch: int, context: int, *, ragged: bool, heads: int, num_layers: int) -> Step:
    """Contexts of `context` tokens, or from half to one and a half of it, on pages in random order."""
    generator = torch.Generator().manual_seed(0)
    context_lens_B = torch.full((batch,), context, dtype=torch.int32)
    if ragged:
        longest = min(context + context // 2, MAX_CONTEXT)
        context_lens_B.random_(context - context // 2, longest + 1, generator=generator)
    num_pages = [pages_for(length) for length in context_lens_B.tolist()]
    pages = torch.randperm(sum(num_pages), generator=generator, dtype=torch.int32)
    page_table_BP = torch.zeros(batch, pages_for(MAX_CONTEXT), dtype=torch.int32)
    for row_P, own in zip(page_table_BP, pages.split(num_pages), strict=True):
        row_P[: len(own)] = own
    width = LATENT_WIDTH + ROTATED_WIDTH
    layer_rows_SW = [
        torch.randn(len(pages) * PAGE_TOKENS, width, dtype=torch.bfloat16, device="cuda") for _ in range(num_layers)
    ]
    return Step(
        queries_BHW=torch.randn(batch, heads, width, dtype=torch.bfloat16, device="cuda"),
        layer_rows_SW=layer_rows_SW,
        page_table_BP=page_table_BP.cuda(),
        context_lens_B=context_lens_B.cuda(),
    )


def _time(step: Step, blocks: DecodeBlocks, repeats: int) -> tuple[float, float]:
    """Seconds of all layers: by the kernel and by the twin, which gathers no wider a table than it must."""
    step.attend(paged_latent_decode, blocks=blocks)  # compiles, which a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.attend(paged_latent_decode, blocks=blocks)
    widest = pages_for(int(step.context_lens_B.max()))
    narrow = replace(step, page_table_BP=step.page_table_BP[:, :widest])
    return _seconds(graph.replay, repeats), _seconds(lambda: narrow.attend(paged_latent_decode_reference), 3)


def _copy_gb_per_s(repeats: int) -> float:
    source = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), repeats) / 1e9


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Median by the device's clock, after one call to warm up."""
    work()
    times_ms = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times_ms.append(start.elapsed_time(end))
    return statistics.median(times_ms) / 1e3


if __name__ == "__main__":
    main()
