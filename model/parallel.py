"""Several processes, each with a share of the experts -> one group that steps together.

Collectives of the ranks of one replica: exchange of rows between them, and agreement on whether there is anything to
step for. NCCL on GPUs, gloo on CPUs; agreement is always gloo, so that it waits for no device. Knows no model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from model.expert_share import ExpertShare


@dataclass(kw_only=True)
class ExchangeStats:
    """What went between the ranks. Seconds are the host's: on a GPU those of queueing, elsewhere those of the exchange,
    waiting for the slowest rank included."""

    num_exchanges: int = 0
    num_bytes_sent: int = 0
    exchange_s: float = 0.0


class RankGroup:
    """This process among the ranks of its replica. One at a time in a process: it is torch's default group."""

    def __init__(self, share: ExpertShare, *, rendezvous: str, device: torch.device, timeout_s: float) -> None:
        """Waits for all other ranks.

        Args:
            rendezvous: path of a file on this node that none of the ranks has used before.
            timeout_s: a rank that keeps the others waiting longer is given up: their collectives raise.
        """
        self.share, self.device = share, device
        self.stats = ExchangeStats()
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{rendezvous}",
            rank=share.rank,
            world_size=share.num_ranks,
            timeout=timedelta(seconds=timeout_s),
        )
        self._agreement = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def any_of(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it holds on at least one rank. Waits until every rank has come here."""
        reached = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(reached, op=dist.ReduceOp.MAX, group=self._agreement)
        return [bool(flag) for flag in reached.tolist()]

    def exchange_counts(self, counts_by_rank: Sequence[Tensor]) -> Tensor:
        """Args: int64 [L_r] for each rank r. Returns int64 [R, L], what each rank had for this one, on the host."""
        sizes = [len(counts) for counts in counts_by_rank]
        own = sizes[self.share.rank]
        received = self._exchange(torch.cat(list(counts_by_rank)), sizes, [own] * self.share.num_ranks)
        return received.view(self.share.num_ranks, own).cpu()

    def exchange_rows(self, rows_ND: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Tensor:
        """Rows sorted by the rank they go to -> rows from all ranks, in the order of the ranks."""
        return self._exchange(rows_ND, list(num_sent), list(num_received))

    def close(self) -> None:
        dist.destroy_process_group()

    def _exchange(self, sent: Tensor, num_sent: list[int], num_received: list[int]) -> Tensor:
        began = time.perf_counter()
        received = sent.new_empty(sum(num_received), *sent.shape[1:])
        dist.all_to_all_single(received, sent.contiguous(), num_received, num_sent)
        self.stats.num_exchanges += 1
        self.stats.num_bytes_sent += sent.nbytes
        self.stats.exchange_s += time.perf_counter() - began
        return received
