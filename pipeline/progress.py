"""How far a run is, as its callers are told."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["listing", "starting", "labeling", "stopping", "finalizing"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counts of this run so far; `num_images` counts those that earlier runs have labelled as well."""

    phase: Phase
    num_images_done: int = 0
    num_images: int = 0
    num_labels: int = 0
    num_quarantined_images: int = 0
    note: str = ""
    """A sentence for a person, told once: why the phase takes longer than usual."""
