"""Stages 2 and 3: the whole model learns to answer, from captions, transcriptions, questions and boxes together.

Shapes: A supervised positions, V vocabulary, C coordinates, E experts.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from model.deepseek_vl2 import DeepseekVL2
from model.moe import MoE, Router
from model.nano.dense_head import DenseHead, as_tensors
from model.nano.dense_targets import dense_targets
from model.nano.lessons import make_turns
from model.nano.packing import TASKS, Packed, Packer
from model.nano.padded_dispatcher import PaddedTokenDispatcher
from model.nano.scenes import WORLD, World, render_scene
from model.nano.training_forward import decode, embed
from model.prompt import Processor
from model.tiling import tile_image

QUESTIONS_PER_SCENE = 8
PHRASES_PER_OBJECT = 2
"""And two more: where there is one object there is nothing to choose."""
TASK_WEIGHTS = {"caption": 1.0, "ocr": 4.0, "qa": 2.0, "grounding": 0.25}
"""Of a token. Transcriptions are few and hard to learn; of a box most tokens are brackets and the phrase itself."""
COORDINATE_WEIGHT = 1.0
FIRST_COORDINATE_WEIGHT = 6.0
"""The left side of a box chooses the thing; the other sides follow from it, as the training text is always right."""
RICH_IN_TEXT = World(page_share=0.30, sign_share=0.45)
DENSE_WEIGHT = 0.3
ALIGNMENT_STEPS = 300
"""At first a decoder that knows nothing yet does not move the tower."""
EASIER_STEPS, SHARPENING_STEPS = 400, 1200
REST_SHARE = 0.35
"""Of a stage that starts from a checkpoint, the part that leaves the tower as it is: it sees well already, the decoder
has more to learn, and the dense head, which no checkpoint brings, begins anew."""
BIAS_RATE = 2e-3
"""Step of the routers' bias towards experts with less than the mean load (arXiv 2412.19437, section 2.1.2)."""


class JointStage:
    name = "joint"

    def __init__(
        self,
        model: DeepseekVL2,
        head: DenseHead,
        processor: Processor,
        *,
        num_steps: int,
        start_step: int | None = None,
    ) -> None:
        """`start_step`: where a stage that starts from a checkpoint begins; None for one that follows the dense one."""
        self.model, self.head, self.num_steps = model, head, num_steps
        self.frozen_until: float = ALIGNMENT_STEPS
        if start_step is not None:
            self.frozen_until = start_step + REST_SHARE * (num_steps - start_step)
        self.packer = Packer(processor)
        self.routers = [module for module in model.modules() if isinstance(module, Router)]
        self._loads: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, MoE):
                module.dispatcher = PaddedTokenDispatcher(len(module.experts.down_proj))
        for router in self.routers:
            router.e_score_correction_bias.requires_grad_(False)
            router.register_forward_hook(lambda _module, _inputs, output: self._loads.append(output[0]))

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "head": self.head}

    def world(self, step: int) -> World:
        """An easier world first, then one with more text than nano's, and nano's for the last sixth."""
        if step < EASIER_STEPS:
            return World(max_objects=2, max_lines=3)
        return RICH_IN_TEXT if step < self.num_steps * 5 / 6 else WORLD

    def coordinate_sigma(self, step: int) -> float:
        """Of the soft targets, in coordinates of ten thousandths: from 4 down to 0.6."""
        return max(0.6, 4.0 * (0.6 / 4.0) ** (step / SHARPENING_STEPS))

    def loss(self, seeds: list[int], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        config, device = self.model.config, self.model.device
        world = self.world(step)
        scenes = [render_scene(seed, world) for seed in seeds]
        images = [tile_image(scene.image, config.candidate_resolutions) for scene in scenes]
        lessons = [
            make_turns(
                scene,
                num_questions=QUESTIONS_PER_SCENE,
                num_phrases=2 + PHRASES_PER_OBJECT * len(scene.objects),
            )
            for scene in scenes
        ]
        packed = self.packer.pack(images, lessons)
        dense = [
            dense_targets(scene, image.grid, tile_px=config.vision.image_size, patch_px=config.vision.patch_size)
            for scene, image in zip(scenes, images, strict=True)
        ]
        tiles = torch.cat([torch.from_numpy(image.tiles) for image in images]).to(device)
        self._loads.clear()
        with torch.set_grad_enabled(step >= self.frozen_until):
            features = self.model.vision(tiles)
        hidden_TD = decode(self.model, embed(self.model, packed, features, [one.grid for one in images]), packed)
        logits_AV = self.model.language.logits(hidden_TD[packed.rows_A.to(device)])
        loss, counts = answer_loss(logits_AV, packed, self.packer.coordinate_ids, self.coordinate_sigma(step))
        wanted = {name: tensor.to(device) for name, tensor in as_tensors(dense).items()}
        dense_loss, dense_counts = self.head(features, wanted)
        counts |= {f"dense_{name}": pair for name, pair in dense_counts.items()}
        return loss + DENSE_WEIGHT * dense_loss, counts

    def after_step(self) -> dict[str, Tensor]:
        """Moves the routers' biases against the loads of the step that was; returns the least and most used expert's
        share of the mean load."""
        shares = []
        for router, ids_TK in zip(self.routers, self._loads, strict=True):
            load_E = torch.bincount(ids_TK.flatten(), minlength=router.config.n_routed_experts or 0).float()
            if dist.is_initialized():
                dist.all_reduce(load_E)
            with torch.no_grad():
                router.e_score_correction_bias.add_(torch.sign(load_E.mean() - load_E), alpha=BIAS_RATE)
            shares.append(load_E / load_E.mean())
        share_LE = torch.stack(shares)
        one = torch.ones(())
        return {"load_min": torch.stack([share_LE.min(), one]), "load_max": torch.stack([share_LE.max(), one])}


def answer_loss(
    logits_AV: Tensor, packed: Packed, coordinate_ids: list[int], sigma: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the answers; a coordinate's target is a Gaussian over all coordinates, so that near is better
    than far. Also per task (tokens right, tokens), and of coordinates the sum of their errors in place of the right."""
    device = logits_AV.device
    targets_A, coordinates_A = packed.targets_A.to(device), packed.coordinates_A.to(device)
    is_coordinate_A = coordinates_A >= 0
    losses_A = F.cross_entropy(logits_AV, targets_A, reduction="none")
    ids_C = torch.tensor(coordinate_ids, device=device)
    distance_XC = torch.arange(len(ids_C), device=device)[None] - coordinates_A[is_coordinate_A][:, None]
    soft_XC = torch.softmax(-0.5 * (distance_XC / sigma) ** 2, dim=-1)
    coordinate_logits_XV = logits_AV[is_coordinate_A]
    log_XC = coordinate_logits_XV.log_softmax(dim=-1)[:, ids_C]
    losses_A = losses_A.masked_scatter(is_coordinate_A, -(soft_XC * log_XC).sum(-1))
    of_task = torch.tensor([TASK_WEIGHTS[task] for task in TASKS], device=device)
    weights_A = of_task[packed.tasks_A.to(device)].masked_fill(is_coordinate_A, COORDINATE_WEIGHT)
    is_first_A = packed.first_coordinates_A.to(device)
    weights_A = weights_A.masked_fill(is_first_A, FIRST_COORDINATE_WEIGHT)
    loss = (losses_A * weights_A).sum() / weights_A.sum()
    with torch.no_grad():
        right_A = logits_AV.argmax(-1) == targets_A
        tasks_A = packed.tasks_A.to(device)
        counts = {}
        for index, task in enumerate(TASKS):
            judged_A = (tasks_A == index) & ~is_coordinate_A
            counts[task] = torch.stack([(right_A & judged_A).sum(), judged_A.sum()]).float()
        guessed_X = coordinate_logits_XV[:, ids_C].argmax(-1)
        errors_X = (guessed_X - coordinates_A[is_coordinate_A]).abs().float()
        counts["coordinate_error"] = torch.stack([errors_X.sum(), torch.tensor(float(len(errors_X)))])
        counts["coordinate_near"] = torch.stack([(errors_X <= 3).sum(), torch.tensor(len(errors_X))]).float()
        first_X = errors_X[is_first_A[is_coordinate_A]]
        counts["first_coordinate_near"] = torch.stack([(first_X <= 3).sum(), torch.tensor(len(first_X))]).float()
    return loss, counts
