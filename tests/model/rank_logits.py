"""One of several processes that compute the logits of a golden prompt together: writes them to FOLDER/RANK.npy.

`python -m tests.model.rank_logits CHECKPOINT CASE NUM_RANKS FOLDER RANK`
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
    name, case, num_ranks, folder, rank = sys.argv[1:]
    share = ExpertShare(rank=int(rank), num_ranks=int(num_ranks))
    model = checkpoint.load(golden.checkpoint_folder(name), share=share)
    group = RankGroup(share, rendezvous=str(Path(folder) / "meeting"), device=torch.device("cpu"), timeout_s=60)
    model.language.partition_experts(group)
    with torch.inference_mode():
        logits_TV = model.logits(golden.prompt(name, case))
    np.save(Path(folder) / f"{rank}.npy", logits_TV.numpy())
    group.close()


if __name__ == "__main__":
    main()
