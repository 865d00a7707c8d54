"""The metrics that a run exports: their names, tags and meaning. Numbers are added to them by `pipeline.metrics`.

Names follow Prometheus: base units, the unit at the end, counters end in `_total` once they are exported. What is a
mean or a share is exported as the two counters whose quotient it is, so that it can be taken over any time and all
replicas.
"""

from dataclasses import dataclass
from typing import Literal

JOB_TAG = "labelmill_job"
"""Of every metric. Not "job": Prometheus gives that name to what it scrapes."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One family of series. No tag may hold URIs, ids or texts: their number would have no bound."""

    name: str
    kind: Literal["counter", "gauge"]
    tags: tuple[str, ...] = ()
    """Besides `JOB_TAG`."""
    help: str

    @property
    def exported_name(self) -> str:
        """In the text that Prometheus scrapes."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


def _counter(name: str, *tags: str, help: str) -> Metric:
    return Metric(name=f"labelmill_{name}", kind="counter", tags=tags, help=help)


def _gauge(name: str, *, help: str) -> Metric:
    return Metric(name=f"labelmill_{name}", kind="gauge", help=help)


RUN_START = _gauge("run_start_timestamp_seconds", help="When the run began to label, in Unix time.")
PENDING_IMAGES = _gauge("pending_images", help="Images that the run has still to commit, as far as they are counted.")

IMAGES = _counter("images", "outcome", help="Images committed, by outcome: labelled or quarantined.")
LABELS = _counter("labels", "recipe", help="Rows made for the label tables.")
PROMPT_TOKENS = _counter("prompt_tokens", "recipe", help="Tokens of the prompts that labels answer, images included.")
OUTPUT_TOKENS = _counter("output_tokens", "recipe", help="Tokens of the answers that became labels.")
QUARANTINED = _counter(
    "quarantined", "recipe", "kind", help="Pairs of an image and a recipe that failed, by the kind of error."
)
ANSWERS = _counter("answers", "recipe", help="Answers decoded, those included that a gate sent back.")
REDECODES = _counter(
    "redecodes", "recipe", "gate", help="Answers decoded again, by the first gate that sent the one before back."
)

STAGE_SECONDS = _counter(
    "stage_seconds", "stage", help="Time that blocks were in the hands of workers, summed over blocks."
)
STAGE_BLOCKS = _counter("stage_blocks", "stage", help="Blocks that workers ended.")
FETCHED_BYTES = _counter("fetched_bytes", help="Encoded bytes of the images that were fetched.")
STORE_RETRIES = _counter("store_retries", help="Requests asked again because the store had failed them.")

ENGINE_STEPS = _counter("engine_steps", help="Steps of the engines.")
ENGINE_STEP_SECONDS = _counter("engine_step_seconds", help="Time of these steps.")
ENGINE_TILES = _counter("engine_tiles", help="Image tiles encoded.")
ENGINE_PREFILL_TOKENS = _counter("engine_prefill_tokens", help="Prompt tokens computed.")
ENGINE_SHARED_TOKENS = _counter(
    "engine_shared_tokens", help="Prompt tokens found in the cache, where another prompt had put them."
)
ENGINE_DECODE_TOKENS = _counter("engine_decode_tokens", help="Tokens decoded, those of rejected answers included.")
ENGINE_RUNNING = _counter("engine_running_sequences", help="Sequences that ran, summed over steps.")
ENGINE_SLOTS = _counter("engine_sequence_slots", help="Sequences that could have run, summed over steps.")
ENGINE_USED_PAGES = _counter("engine_used_pages", help="Cache pages in use, summed over steps.")
ENGINE_PAGES = _counter("engine_pages", help="Cache pages that there are, summed over steps.")
ENGINE_PREEMPTIONS = _counter("engine_preemptions", help="Sequences put back for want of cache pages.")
EXPERT_TOKENS = _counter("engine_expert_tokens", help="Tokens given to routed experts, summed over layers.")
EXPERT_PEAK_TOKENS = _counter(
    "engine_expert_peak_tokens",
    help="The same, if every expert had been given as many as the busiest of its layer.",
)

METRICS: tuple[Metric, ...] = (
    RUN_START,
    PENDING_IMAGES,
    IMAGES,
    LABELS,
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    QUARANTINED,
    ANSWERS,
    REDECODES,
    STAGE_SECONDS,
    STAGE_BLOCKS,
    FETCHED_BYTES,
    STORE_RETRIES,
    ENGINE_STEPS,
    ENGINE_STEP_SECONDS,
    ENGINE_TILES,
    ENGINE_PREFILL_TOKENS,
    ENGINE_SHARED_TOKENS,
    ENGINE_DECODE_TOKENS,
    ENGINE_RUNNING,
    ENGINE_SLOTS,
    ENGINE_USED_PAGES,
    ENGINE_PAGES,
    ENGINE_PREEMPTIONS,
    EXPERT_TOKENS,
    EXPERT_PEAK_TOKENS,
)
