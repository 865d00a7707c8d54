"""The decode kernel agrees with its plain twin, reads nothing outside a context, and no neighbour changes a bit.

Without a GPU the kernel runs in Triton's interpreter, which is chosen by an environment variable when triton is
imported: hence in a process of its own. `make test-kernels` installs triton.
"""

import importlib.util
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.kernels.paged_latent_decode import MAX_SPLITS, DecodeBlocks, is_available, paged_latent_decode
from model.kernels.paged_latent_decode_reference import paged_latent_decode_reference
from model.kv_cache import PAGE_TOKENS
from tests.model.decode_cases import Kernel, assert_agree, case

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def short_splits(heads: int = 6, dtype: torch.dtype = torch.float32) -> DecodeBlocks:
    """A block of rows per split, so that contexts of a few dozen tokens have several."""
    return replace(DecodeBlocks.choose(heads, dtype), tokens=16, split_tokens=16)


def triton_version() -> tuple[int, ...]:
    import triton

    return tuple(int(number) for number in triton.__version__.split(".")[:2])


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process in which triton interprets its kernels; the variable that asks for it is set for its start only."""
    if triton_version() < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("the interpreter of triton before 3.7 needs numpy before 2.4")
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_INTERPRET", "1")
            environment.setenv("OMP_NUM_THREADS", "1")
            assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == "1"
        yield pool


@pytest.fixture
def kernel(interpreter: ProcessPoolExecutor) -> Kernel:
    """`paged_latent_decode` there."""

    def run(*tensors: Tensor, **settings: object) -> Tensor:
        return interpreter.submit(paged_latent_decode, *tensors, **settings).result()

    return run


@needs_triton
@pytest.mark.parametrize("context_len", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernel_agrees_with_its_twin_at_every_fill_of_the_last_page(kernel: Kernel, context_len, dtype):
    example = case([context_len], dtype=dtype)
    assert_agree(example.run(kernel), example.run(paged_latent_decode_reference))


@needs_triton
@pytest.mark.parametrize(
    ("heads", "latent", "rotated"), [(6, 64, 16), (16, 512, 64), (32, 512, 64), (10, 512, 64), (40, 64, 16)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernel_agrees_with_its_twin_for_every_head_count_and_width(kernel: Kernel, heads, latent, rotated, dtype):
    example = case([40, 3], heads=heads, latent=latent, rotated=rotated, dtype=dtype)
    assert_agree(example.run(kernel), example.run(paged_latent_decode_reference))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_splits_of_ragged_contexts_merge_to_the_whole(kernel: Kernel, dtype):
    example = case([33, 1, 200, 16, 0, 100], dtype=dtype)
    assert_agree(example.run(kernel, blocks=short_splits(dtype=dtype)), example.run(paged_latent_decode_reference))


@needs_triton
@pytest.mark.parametrize("context_len", [129, 145, 257])
def test_long_contexts_have_longer_splits_instead_of_more(kernel: Kernel, context_len):
    """Eight at most: of 32 tokens here; the last four of them are in part or wholly empty with 129 tokens."""
    example = case([context_len, 5])
    assert_agree(example.run(kernel, blocks=short_splits()), example.run(paged_latent_decode_reference))


@needs_triton
def test_split_with_the_largest_score_outweighs_the_others_without_overflow(kernel: Kernel):
    example = case([64])
    example.queries_BHW.mul_(1e3)
    assert_agree(example.run(kernel, blocks=short_splits()), example.run(paged_latent_decode_reference))


@needs_triton
def test_sequence_has_the_same_bits_alone_and_beside_longer_ones(kernel: Kernel):
    """Also where the others make the page table, and with it the grid of splits, wider."""
    together = case([200, 17, 90, 300])
    results_BHL = together.run(kernel, blocks=short_splits())
    for sequence in range(4):
        alone = together.only(sequence)
        assert torch.equal(alone.run(kernel, blocks=short_splits())[0], results_BHL[sequence])


@needs_triton
def test_nothing_outside_a_context_shows(kernel: Kernel):
    """NaN lies in page 0, to which unused table entries point, and in the unused end of every last page."""
    clean, dirty = (case([17, 40, 1], unused=unused) for unused in (0.0, torch.nan))
    assert dirty.rows_SW.isnan().any()
    assert torch.equal(dirty.run(kernel), clean.run(kernel))


@needs_triton
def test_nan_inside_a_context_is_not_hidden(kernel: Kernel):
    example = case([17, 17])
    example.rows_SW[int(example.page_table_BP[1, 1]) * PAGE_TOKENS] = torch.nan
    healthy, broken = example.run(kernel)
    assert not healthy.isnan().any()
    assert broken.isnan().all()


@needs_triton
def test_table_entries_past_the_context_are_not_followed(kernel: Kernel):
    example = case([17, 40])
    expected = example.run(kernel)
    example.page_table_BP[0, 2:] = 2**30
    assert torch.equal(example.run(kernel), expected)


@needs_triton
def test_empty_context_gives_zeros(kernel: Kernel):
    results_BHL = case([0, 20, 0]).run(kernel)
    assert not results_BHL[[0, 2]].any()
    assert results_BHL[1].all()


@needs_triton
def test_batch_of_none_is_answered_without_a_launch(kernel: Kernel):
    example = case([5])
    none = replace(
        example,
        queries_BHW=example.queries_BHW[:0],
        page_table_BP=example.page_table_BP[:0],
        context_lens_B=example.context_lens_B[:0],
    )
    assert none.run(kernel).shape == (0, 6, 64)


@needs_triton
def test_rows_queries_and_table_may_be_views_of_something_larger(kernel: Kernel):
    plain = case([17, 40])
    views = replace(
        plain,
        rows_SW=torch.stack([plain.rows_SW, torch.full_like(plain.rows_SW, torch.nan)], dim=1)[:, 0],
        queries_BHW=plain.queries_BHW.transpose(0, 1).contiguous().transpose(0, 1),
        page_table_BP=torch.cat([plain.page_table_BP, torch.full_like(plain.page_table_BP, 2**30)], dim=1)[:, :3],
    )
    assert not any(view.is_contiguous() for view in (views.rows_SW, views.queries_BHW, views.page_table_BP))
    assert torch.equal(views.run(kernel), plain.run(kernel))


@needs_triton
@pytest.mark.parametrize(("latent", "rotated"), [(48, 16), (64, 8)])
def test_widths_that_no_tile_fits_are_refused(kernel: Kernel, latent, rotated):
    with pytest.raises(ValueError, match=r"powers of two from 16 up, not (48|8)$"):
        case([5], latent=latent, rotated=rotated).run(kernel)


@needs_triton
def test_other_dtypes_are_refused(kernel: Kernel):
    with pytest.raises(ValueError, match=r"bfloat16 and float32, not torch\.float16"):
        case([5], dtype=torch.float16).run(kernel)


def test_twin_is_softmax_over_the_rows_of_the_context():
    example = case([20, 0, 3], heads=2)
    results_BHL = example.run(paged_latent_decode_reference)
    rows_CW = example.rows_SW.view(-1, PAGE_TOKENS, 80)[example.page_table_BP[0].long()].flatten(0, 1)[:20]
    weights_HC = (example.queries_BHW[0] @ rows_CW.T * 80**-0.5).softmax(-1)
    torch.testing.assert_close(results_BHL[0], weights_HC @ rows_CW[:, :64])
    assert not results_BHL[1].any()
    assert not results_BHL.isnan().any()


def test_kernel_needs_a_gpu_or_the_interpreter(monkeypatch):
    has_triton = importlib.util.find_spec("triton") is not None
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not is_available(torch.device("cpu"))
    assert is_available(torch.device("cuda")) == has_triton
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert is_available(torch.device("cpu")) == has_triton


@needs_triton
@pytest.mark.parametrize(
    ("heads", "dtype", "programs_per_sm"), [(16, torch.bfloat16, 2), (32, torch.bfloat16, 1), (16, torch.float32, 1)]
)
def test_program_compiled_for_an_h100_fits_its_shared_memory(monkeypatch, tmp_path, heads, dtype, programs_per_sm):
    """228 KB per SM, of which every resident program takes 1 KB for the system (CUDA C++ Programming Guide)."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    shared_bytes = shared_bytes_on_h100(DecodeBlocks.choose(heads, dtype), heads=heads, dtype=dtype)
    assert programs_per_sm * (shared_bytes + 1024) <= 228 * 1024


def shared_bytes_on_h100(blocks: DecodeBlocks, *, heads: int, dtype: torch.dtype) -> int:
    """Shared memory of `attend_splits` on rows 576 wide; the compiler needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from model.kernels.paged_latent_decode_triton import attend_splits

    constants = {
        "NUM_HEADS": heads,
        "L": 512,
        "R": 64,
        "PAGE_TOKENS": PAGE_TOKENS,
        "BLOCK_HEADS": blocks.heads,
        "BLOCK_TOKENS": blocks.tokens,
        "SPLIT_TOKENS": blocks.split_tokens,
        "MAX_SPLITS": MAX_SPLITS,
    }
    pointer = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    types = {"queries_ptr": pointer, "rows_ptr": pointer, "page_table_ptr": "*i32", "context_lens_ptr": "*i32"}
    types |= {"attended_ptr": "*fp32", "lse_ptr": "*fp32", "scale_log2": "fp32"}
    names = attend_splits.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [name for name in names if name.endswith("_ptr") or name in ("row_stride", "query_stride_h")]
    source = ASTSource(
        attend_splits,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": blocks.num_warps, "num_stages": blocks.num_stages}
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options).metadata.shared


# On a GPU, compiled.


@pytest.mark.gpu
@needs_cuda
@needs_triton
@pytest.mark.parametrize(
    ("heads", "latent", "rotated", "dtype"),
    [
        (16, 512, 64, torch.bfloat16),
        (32, 512, 64, torch.bfloat16),
        (6, 64, 16, torch.bfloat16),
        (16, 512, 64, torch.float32),
    ],
)
def test_compiled_kernel_agrees_with_its_twin(heads, latent, rotated, dtype):
    lengths = [450, 1, 16, 2000, 0, 300, 17, 4096]
    example = case(lengths, heads=heads, latent=latent, rotated=rotated, dtype=dtype).to("cuda")
    assert_agree(example.run(paged_latent_decode), example.run(paged_latent_decode_reference))


@pytest.mark.gpu
@needs_cuda
@needs_triton
def test_compiled_kernel_gives_a_sequence_the_same_bits_alone_and_beside_longer_ones():
    together = case([450, 2000, 17, 4096], heads=16, latent=512, rotated=64, dtype=torch.bfloat16).to("cuda")
    results_BHL = together.run(paged_latent_decode)
    for sequence in range(4):
        assert torch.equal(together.only(sequence).run(paged_latent_decode)[0], results_BHL[sequence])


@pytest.mark.gpu
@needs_cuda
@needs_triton
def test_captured_launch_follows_lengths_that_change_between_replays():
    example = case([450, 2000, 17, 300], heads=16, latent=512, rotated=64, dtype=torch.bfloat16).to("cuda")
    example.run(paged_latent_decode)  # compiles, which a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results_BHL = example.run(paged_latent_decode)
    for lengths in ([450, 2000, 17, 300], [1, 1999, 0, 257]):
        example.context_lens_B.copy_(torch.tensor(lengths, dtype=torch.int32))
        graph.replay()
        assert torch.equal(results_BHL, example.run(paged_latent_decode))
        assert_agree(results_BHL, example.run(paged_latent_decode_reference))


def nano_tokens() -> list[list[int]]:
    """Answers of the built-in checkpoint, whose latents are of widths that the kernel takes."""
    from model.engine import Engine, EngineConfig
    from tests.model.helpers import ask, image

    with Engine.load("nano", config=EngineConfig(max_num_sequences=4)) as engine:
        requests = [ask("<image>\nWhat?", images=(image("tiny"),), max_new_tokens=6), ask("Why?", max_new_tokens=9)]
        return [completion.token_ids for completion in engine.generate(requests)]


@needs_triton
def test_engine_that_decodes_by_the_kernel_answers_as_without_it(interpreter: ProcessPoolExecutor):
    assert interpreter.submit(nano_tokens).result() == nano_tokens()
