"""How far a run is, as its callers are told, and as its lease tells everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["listing", "starting", "labeling", "stopping", "finalizing"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counts of this run so far; `num_images` counts those that earlier runs have labelled as well."""

    phase: Phase
    num_images_done: int = 0
    num_images: int = 0
    num_pending_images: int | None = None
    """That this run still has to label; None until they are counted."""
    num_labels: int = 0
    num_quarantined_images: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    labels_by_recipe: Mapping[str, int] = field(default_factory=dict)
    quarantined_by_kind: Mapping[str, int] = field(default_factory=dict)
    """Images; one that failed in two ways counts in both."""
    images_per_s: float = 0.0
    """This and what follows: over the last minute."""
    labels_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    occupancy: float | None = None
    """Of all engines, the mean share of the sequences that could run at once; None where they made no step."""
    cache_use: float | None = None
    """Of all engines, the mean share of the cache's pages in use."""
    images_per_s_since_start: float = 0.0
    """This and the next: since labeling began, the loading of the model included."""
    output_tokens_per_s_since_start: float = 0.0
    eta_s: float | None = None
    """Until nothing of this run is pending, at the present speed; None where nobody can tell yet."""
    timeline: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """How images and output tokens grew (see `pipeline.timeline`)."""
    expert_imbalance: Sequence[float] = ()
    """Since the start, of each layer with experts the busiest over the mean; none before the first token."""
    note: str = ""
    """A sentence for a person, told once: why the phase takes longer than usual."""
