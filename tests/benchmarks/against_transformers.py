"""Continuous batching in our engine against static batches in `transformers`, text only, on the same weights.

Run `python -m tests.benchmarks.against_transformers --help`. First shows that both compute the same tokens, then times
both by turns. Requested output tokens count; rows that a static batch computes for answered requests do not.
"""

import argparse
import functools
from collections.abc import Callable

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from model.config import ProcessorConfig
from model.engine import Engine, EngineConfig, Request
from model.kv_cache import PAGE_TOKENS
from model.prompt import Processor
from model.tokenizer import ChatTokenizer
from tests.benchmarks import transformers_side
from tests.benchmarks.agreement import require_agreement
from tests.benchmarks.comparison import (
    compare,
    machine,
    print_setting,
    rate_of,
    take_turns,
    use_cpus,
    write_json,
)
from tests.benchmarks.random_models import num_active_parameters, num_parameters, random_model, text_model_config
from tests.benchmarks.text_requests import MAX_PROMPT_TOKENS, TextRequest, draw_requests, in_batches, padding_share

OURS, OURS_STATIC, THEIRS = "labelmill", "labelmill, static batches", "transformers, static batches"
_BOS, _EOS = "<bos>", "<eos>"
_CONTROL_TOKENS = 16
"""Ids left free for them behind the words."""
_PROBE_PROMPT_TOKENS = 8


def main() -> None:
    arguments = _parse()
    if arguments.device == "cpu":
        use_cpus(arguments.threads)
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    config = text_model_config(num_layers=arguments.layers)
    model = random_model(config, seed=arguments.seed, dtype=dtype).to(arguments.device)
    num_words = config.language.vocab_size - _CONTROL_TOKENS
    processor = word_processor(num_words)
    theirs = transformers_side.transformers_model(model)
    setting = machine(arguments.threads) | {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "dtype": arguments.dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "parameters": num_parameters(model),
        "parameters read per token": num_active_parameters(model),
        "layers": arguments.layers,
        "sequences at once": arguments.batch,
        "requests": arguments.num_requests,
        "seed": arguments.seed,
    }
    print_setting(setting)
    requests = functools.partial(draw_requests, arguments.num_requests, seed=arguments.seed, num_words=num_words)
    workloads = {
        "mixed": requests(max_output_tokens=arguments.max_output_tokens),
        "equal": requests(equal_output_tokens=arguments.equal_output_tokens),
    }
    cache_tokens = cache_tokens_for(list(workloads.values()), processor, arguments.batch)
    # As many at once as the cache holds: it is their memory, and pages are taken as sequences grow.
    engine_config = EngineConfig(max_num_sequences=arguments.num_requests, cache_tokens=cache_tokens)
    report: dict[str, object] = {"setting": setting | {"our cache_tokens": cache_tokens}}
    with Engine(model, processor, config=engine_config) as engine:
        first = workloads["mixed"][: min(4, arguments.num_requests)]
        ids = [prompt_ids(processor, request) for request in first]
        tokens = [completion.token_ids for completion in engine.generate([asked(r, 32) for r in first])]
        report["agreement"] = require_agreement(
            ids,
            tokens,
            [transformers_side.generate(theirs, [prompt], 32)[0] for prompt in ids],
            logits_of=lambda sequence: transformers_side.logits(theirs, sequence),
            tolerance=1e-3 if dtype == torch.float32 else 0.5,
        )
        report["experts"] = _choose_experts(arguments, theirs, processor, workloads["equal"][: arguments.batch])
        for name in arguments.workloads:
            report[name] = _measure(name, workloads[name], arguments, engine, theirs)
    write_json(arguments.json, report)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1, help="CPUs both sides use; nothing else is bound on a GPU")
    parser.add_argument("--layers", type=int, default=9, help="9: 163 M parameters; fewer to try the script out")
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help="sequences of a static batch; our engine gets the cache memory that such a batch needs",
    )
    parser.add_argument("--num-requests", type=int, default=48)
    parser.add_argument("--max-output-tokens", type=int, default=256, help="of the mixed workload")
    parser.add_argument("--equal-output-tokens", type=int, default=64, help="of the equal workload")
    parser.add_argument("--workloads", nargs="+", choices=["mixed", "equal"], default=["mixed", "equal"])
    parser.add_argument("--experts", choices=transformers_side.EXPERTS_IMPLEMENTATIONS, help="by default the fastest")
    parser.add_argument("--static-too", action="store_true", help="also give our engine their static batches")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def word_processor(num_words: int) -> Processor:
    """Prompts of words w0, w1, ...: word n is token n, so that both sides are given the same ids."""
    words = {f"w{index}": index for index in range(num_words)} | {_BOS: num_words, _EOS: num_words + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    chat = ChatTokenizer(tokenizer, image_token="<image>", bos_token_id=num_words, eos_token_id=num_words + 1)
    config = ProcessorConfig(candidate_resolutions=((28, 28),), patch_size=14, downsample_ratio=2)
    return Processor(config, chat)


def asked(request: TextRequest, num_output_tokens: int | None = None) -> Request:
    text = " ".join(f"w{word}" for word in request.prompt_words)
    return Request(
        messages=[{"role": "user", "content": text}, {"role": "assistant", "content": ""}],
        max_new_tokens=num_output_tokens or request.num_output_tokens,
        ignore_eos=True,
    )


def prompt_ids(processor: Processor, request: TextRequest) -> list[int]:
    return processor.encode(asked(request).messages).input_ids.tolist()


def cache_tokens_for(workloads: list[list[TextRequest]], processor: Processor, batch: int) -> int:
    """What the largest static batch could need: `batch` sequences of the longest prompt with the longest output."""
    requests = [request for workload in workloads for request in workload]
    longest = max(len(prompt_ids(processor, request)) for request in requests)
    longest += max(request.num_output_tokens for request in requests)
    return batch * -(-longest // PAGE_TOKENS) * PAGE_TOKENS


def _choose_experts(
    arguments: argparse.Namespace,
    theirs: transformers.PreTrainedModel,
    processor: Processor,
    batch: list[TextRequest],
) -> dict[str, object]:
    if arguments.experts is not None:
        theirs.set_experts_implementation(arguments.experts)
        return {"chosen": arguments.experts}
    # Short prompts: `batched_mm` copies the weights of every chosen expert for every token, 19 GB for 16 whole ones.
    ids = [prompt_ids(processor, request)[-_PROBE_PROMPT_TOKENS:] for request in batch]
    rates = transformers_side.rate_experts_implementations(theirs, ids, num_tokens=16, repeats=2)
    chosen = max(rates, key=rates.__getitem__)
    print("transformers' experts, tokens/s:", ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items()))
    print(f"  {chosen} is the fastest and is used")
    return {"tokens_per_s": rates, "chosen": chosen}


def _measure(
    name: str,
    requests: list[TextRequest],
    arguments: argparse.Namespace,
    engine: Engine,
    theirs: transformers.PreTrainedModel,
) -> dict[str, object]:
    num_tokens = sum(request.num_output_tokens for request in requests)
    padding = padding_share(requests, arguments.batch)
    print(
        f"{name}: {len(requests)} requests, prompts of at most {MAX_PROMPT_TOKENS} words, {num_tokens} output tokens "
        f"({min(r.num_output_tokens for r in requests)} to {max(r.num_output_tokens for r in requests)}); "
        f"{padding:.0%} of the rows of static batches are of answered requests"
    )
    sides: dict[str, Callable[[], object]] = {
        OURS: lambda: engine.generate([asked(request) for request in requests]),
        THEIRS: lambda: _theirs_in_static_batches(engine.processor, theirs, requests, arguments.batch),
    }
    if arguments.static_too:
        sides[OURS_STATIC] = lambda: _ours_in_static_batches(engine, requests, arguments.batch)
    rates = take_turns(
        {side: functools.partial(rate_of, num_tokens, work) for side, work in sides.items()}, arguments.repeats
    )
    result = compare("tokens/s", rates, ours=OURS)
    return result | {"output_tokens": num_tokens, "padding_share": padding}


def _ours_in_static_batches(engine: Engine, requests: list[TextRequest], batch: int) -> None:
    """The next batch waits for the longest of this one: what is left of the difference is not the batching."""
    for members in in_batches(requests, batch):
        engine.generate([asked(request) for request in members])


def _theirs_in_static_batches(
    processor: Processor, theirs: transformers.PreTrainedModel, requests: list[TextRequest], batch: int
) -> None:
    for members in in_batches(requests, batch):
        ids = [prompt_ids(processor, request) for request in members]
        transformers_side.generate(theirs, ids, max(request.num_output_tokens for request in members))


if __name__ == "__main__":
    main()
