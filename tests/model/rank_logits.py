"""One of several processes that compute the logits of golden prompts together, a checkpoint after another: writes them
to FOLDER/CHECKPOINT-RANK.npy.

`python -m tests.model.rank_logits NUM_RANKS FOLDER RANK CHECKPOINT=CASE ...`
"""

import sys
from pathlib import Path

import numpy as np
import torch

from model import checkpoint
from model.expert_share import ExpertShare
from model.parallel import RankGroup
from tests import golden


def main() -> None:
    num_ranks, folder, rank, *cases = sys.argv[1:]
    share = ExpertShare(rank=int(rank), num_ranks=int(num_ranks))
    group = RankGroup(share, rendezvous=str(Path(folder) / "meeting"), device=torch.device("cpu"), timeout_s=60)
    for name, case in (one.split("=", 1) for one in cases):
        model = checkpoint.load(golden.checkpoint_folder(name), share=share)
        model.language.partition_experts(group)
        with torch.inference_mode():
            logits_TV = model.logits(golden.prompt(name, case))
        np.save(Path(folder) / f"{name}-{rank}.npy", logits_TV.numpy())
    group.close()


if __name__ == "__main__":
    main()
