"""Trains nano from nothing: `python -m model.nano.train --work DIR` (or `make nano`), on a CPU or a GPU.

Two stages, each with its own schedule: the vision encoder learns to see from dense targets, then the whole model
learns to answer. On a CPU every core is one rank with the same weights and scenes of its own; on a GPU there is one
rank. What is learned is saved to DIR as it goes: a run that was stopped goes on from there. With `--start CHECKPOINT`
the second stage goes on from the weights of a checkpoint instead, on scenes of its own.
"""

import argparse
import ctypes.util
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from model import checkpoint
from model.checkpoint_files import NANO_FOLDER, local_folder
from model.nano.architecture import as_trained, random_model, save_weights, write_architecture
from model.nano.dense_head import DenseHead
from model.nano.optimizer import MasterOptimizer
from model.nano.scenes import scene_seed
from model.nano.stage_dense import DenseStage
from model.nano.stage_joint import JointStage
from model.nano.training_forward import plain_attention
from model.prompt import Processor

INITIAL_SEED = 0
WARMUP_STEPS, LAST_RATE = 100, 0.03
DECAY_SHARE = 0.5
"""Of a stage's steps, those in which the rate comes down."""
LOG_EVERY, SAVE_EVERY = 50, 100
STATE_FILE, CURVE_FILE, CHECKPOINT_FOLDER = "state.pt", "curve.jsonl", "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run trains."""

    dense_steps: int = 6500
    joint_steps: int = 4500
    images_per_step: int = 24
    start: Path | None = None
    """A checkpoint folder whose weights the joint stage starts from, instead of the dense stage's."""
    start_step: int = 0
    """Where in the joint stage a start from a checkpoint begins."""

    def num_steps(self, stage: str) -> int:
        return self.dense_steps if stage == "dense" else self.joint_steps


STAGES = {"dense": 1, "joint": 2}
"""In their order; the number is the seed of the stage's scenes."""
FURTHER_SEED = 3
"""Of the scenes of a joint stage that started from a checkpoint."""

LR_SCALES = {"dense": {}, "joint": {"model.vision": 0.25, "head": 0.25}}


def rate(step: int, num_steps: int, first: int = 0) -> float:
    """Linear warm-up, a plateau, then a straight line down to LAST_RATE: until the line begins, a run does not depend
    on where it will end."""
    left = (num_steps - step) / (num_steps * DECAY_SHARE)
    return min(1.0, (step - first + 1) / WARMUP_STEPS) * (LAST_RATE + (1 - LAST_RATE) * min(1.0, left))


def train(rank: int, num_ranks: int, work: Path, plan: Plan, device: str, meeting: str) -> None:
    """One rank's whole run; rank 0 writes the files."""
    torch.set_num_threads(1 if num_ranks > 1 else torch.get_num_threads())
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_ranks)
    trainer = Trainer(work, plan, torch.device(device), rank=rank, num_ranks=num_ranks)
    trainer.run()
    if num_ranks > 1:
        dist.destroy_process_group()


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, and on a CPU where its products are not slower than float32's, which differs by the CPU."""
    if device.type != "cpu":
        return torch.bfloat16
    matrices = [torch.ones(768, 768, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
    return min(matrices, key=_least_seconds_of_product).dtype


def _least_seconds_of_product(matrix: Tensor) -> float:
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _agreed(dtype: torch.dtype) -> torch.dtype:
    """Rank 0's choice: ranks of different dtypes would drift apart."""
    choice = torch.tensor(int(dtype == torch.bfloat16))
    if dist.is_initialized():
        dist.broadcast(choice, src=0)
    return torch.bfloat16 if choice else torch.float32


def kept_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a rank so that jemalloc, where it is installed, keeps large blocks of memory
    until the next step, as small ones: a fifth of a step is spent on getting them back from the system else. It gives
    back what was not needed for ten seconds; without that end, batches of ever other lengths would fill the machine.
    """
    library = ctypes.util.find_library("jemalloc")
    if library is None or "LD_PRELOAD" in environment:
        return {}
    return {"LD_PRELOAD": library, "MALLOC_CONF": "oversize_threshold:0"}


class Trainer:
    def __init__(self, work: Path, plan: Plan, device: torch.device, *, rank: int, num_ranks: int) -> None:
        self.plan, self.rank, self.num_ranks = plan, rank, num_ranks
        self.folder, self.state_path = work / CHECKPOINT_FOLDER, work / STATE_FILE
        self.curve_path = work / CURVE_FILE
        torch.manual_seed(INITIAL_SEED)  # every rank begins with the same head
        self._state = torch.load(self.state_path, map_location="cpu") if self.state_path.exists() else None
        self.dtype = self._state["dtype"] if self._state else _agreed(fastest_dtype(device))
        model = checkpoint.load(plan.start, device=device) if plan.start else random_model(self.folder, INITIAL_SEED)
        self.model = as_trained(model.to(device), self.dtype).requires_grad_()
        self.head = DenseHead(self.model.config.vision.width).to(device, self.dtype)

    def run(self) -> None:
        state, self._state = self._state, None
        if state:
            self.model.load_state_dict(state["model"])
            self.head.load_state_dict(state["head"])
        done = list(STAGES).index(state["stage"] if state else "joint" if self.plan.start else "dense")
        for stage in list(STAGES)[done:]:
            self._run_stage(stage, state if state and state["stage"] == stage else None)
        if self.rank == 0:
            save_weights(self.model, self.folder)

    def _run_stage(self, name: str, state: dict[str, object] | None) -> None:
        num_steps = self.plan.num_steps(name)
        stage = self._stage(name, num_steps)
        parameters = [
            (f"{part}.{parameter_name}", parameter)
            for part, module in stage.modules().items()
            for parameter_name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        optimizer = MasterOptimizer(parameters, lr_scales=LR_SCALES[name], dtype=self.dtype)
        start = self.plan.start_step if self.plan.start else 0
        first = start
        if state:
            first = int(state["step"])  # type: ignore[call-overload]
            if first < num_steps:
                optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        sums: dict[str, Tensor] = {}
        began = time.monotonic()
        for step in range(first, num_steps):
            with plain_attention():
                loss, counts = stage.loss(list(self._seeds(name, step)), step)
                loss.backward()
            norm = optimizer.step(rate(step, num_steps, start))
            counts |= stage.after_step() | {"loss": torch.stack([loss.detach().cpu(), torch.ones(())])}
            counts["norm"] = torch.tensor([norm, 1.0])
            for key, pair in counts.items():
                sums[key] = sums.get(key, torch.zeros(2)) + pair.cpu()
            if (step + 1) % LOG_EVERY == 0 or step + 1 == num_steps:
                self._log(name, step + 1, time.monotonic() - began, sums)
                sums = {}
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
                self._save(name, step + 1, optimizer)

    def _stage(self, name: str, num_steps: int) -> DenseStage | JointStage:
        if name == "dense":
            return DenseStage(self.model, self.head)
        return JointStage(
            self.model,
            self.head,
            Processor.from_checkpoint(self.folder),
            num_steps=num_steps,
            start_step=self.plan.start_step if self.plan.start else None,
        )

    def _seeds(self, stage: str, step: int) -> Iterator[int]:
        """No scene twice, and the same ones however many ranks share them."""
        seed = FURTHER_SEED if self.plan.start else STAGES[stage]
        for index in range(self.rank, self.plan.images_per_step, self.num_ranks):
            yield scene_seed(seed, step * self.plan.images_per_step + index)

    def _log(self, stage: str, step: int, seconds: float, sums: dict[str, Tensor]) -> None:
        if self.rank == 0:
            means = {key: round(float(pair[0] / pair[1].clamp(min=1)), 4) for key, pair in sums.items()}
            line = json.dumps({"stage": stage, "step": step, "seconds": round(seconds), **means})
            with open(self.curve_path, "a", encoding="utf-8") as curve:
                curve.write(line + "\n")
            print(line, flush=True)

    def _save(self, stage: str, step: int, optimizer: MasterOptimizer) -> None:
        if self.rank == 0:
            state = {
                "stage": stage,
                "step": step,
                "dtype": self.dtype,
                "model": self.model.state_dict(),
                "head": self.head.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            half_written = self.state_path.with_suffix(".writing")
            torch.save(state, half_written)
            os.replace(half_written, self.state_path)
            save_weights(self.model, self.folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model.nano.train", description="Trains nano from nothing.")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is learned; a stopped run goes on")
    parser.add_argument("--dense-steps", type=int, default=Plan.dense_steps)
    parser.add_argument("--joint-steps", type=int, default=Plan.joint_steps)
    parser.add_argument("--start", help="nano or a checkpoint folder: leave the dense stage out and go on from there")
    parser.add_argument("--start-step", type=int, default=1200, help="with --start: where in the joint stage to begin")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    plan = Plan(
        dense_steps=options.dense_steps,
        joint_steps=options.joint_steps,
        start=local_folder(options.start) if options.start else None,
        start_step=options.start_step,
    )
    write_architecture(options.work / CHECKPOINT_FOLDER)
    num_ranks = 1 if options.device != "cpu" else min(plan.images_per_step, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        job = (num_ranks, options.work, plan, options.device, str(Path(folder) / "meeting"))
        if num_ranks == 1:
            train(0, *job)
        else:
            os.environ.update(kept_memory(os.environ))
            torch.multiprocessing.spawn(train, args=job, nprocs=num_ranks)
    print(f"trained: {options.work / CHECKPOINT_FOLDER}; ship it by copying it to {NANO_FOLDER}")


if __name__ == "__main__":
    main()
