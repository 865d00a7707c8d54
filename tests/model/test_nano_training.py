"""The training of nano, in its smallest: that it supervises what it should, and that a stopped run goes on."""

import json
from pathlib import Path

import pytest
import torch

from model.checkpoint import load
from model.checkpoint_files import NANO_FOLDER
from model.deepseek_vl2 import DeepseekVL2
from model.nano import train
from model.nano.architecture import as_trained, random_model, save_weights, write_architecture
from model.nano.dense_head import DenseHead
from model.nano.lessons import Turn, caption_turn, grounding_turn, make_turns, ocr_turn
from model.nano.muon import Muon
from model.nano.optimizer import MasterOptimizer
from model.nano.packing import Packer
from model.nano.scenes import Scene, render_scene, scene_seed
from model.nano.stage_joint import JointStage, answer_loss
from model.nano.train import Plan, Trainer, rate
from model.nano.training_forward import decode, embed
from model.nano.vocabulary import COORDINATES
from model.prompt import Processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "checkpoint"
    write_architecture(path)
    save_weights(random_model(path, seed=0), path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> DeepseekVL2:
    """Random weights, without the rounding of bfloat16 between the passes that are compared."""
    return load(folder)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return Processor.from_checkpoint(folder)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Two objects at least, and a sign."""
    scenes = (render_scene(scene_seed(9, index)) for index in range(100))
    return next(one for one in scenes if len(one.objects) > 1 and one.text)


def packed_logits(model: DeepseekVL2, processor: Processor, scene: Scene, turns: list[Turn]) -> torch.Tensor:
    images = processor.tile([scene.image])
    packed = Packer(processor).pack(images, [turns])
    features = model.vision_features(images[0].tiles)
    hidden_TD = decode(model, embed(model, packed, features, [images[0].grid]), packed)
    return model.language.logits(hidden_TD[packed.rows_A])


def test_each_turn_is_trained_as_the_engine_would_compute_it_alone(
    model: DeepseekVL2, processor: Processor, scene: Scene
):
    turns = make_turns(scene, num_questions=3, num_phrases=2)
    logits_AV = packed_logits(model, processor, scene, turns)
    rows = []
    for turn in turns:
        whole = processor.encode(turn.messages, [scene.image])
        asked = processor.encode([turn.messages[0], {"role": "assistant", "content": ""}], [scene.image])
        rows.append(model.logits(whole)[len(asked) - 1 :])
    alone_AV = torch.cat(rows)
    assert alone_AV.shape == logits_AV.shape
    torch.testing.assert_close(logits_AV, alone_AV, atol=1e-4, rtol=1e-4)


def test_answers_alone_are_supervised_each_to_its_end_of_sentence(processor: Processor, scene: Scene):
    turns = [caption_turn(scene, with_hint=True), ocr_turn(scene)]
    packed = Packer(processor).pack(processor.tile([scene.image]), [turns])
    end = processor.tokenizer.eos_token_id
    answers = [part.tolist() for part in packed.targets_A.tensor_split((packed.targets_A == end).nonzero()[:, 0] + 1)]
    assert [processor.decode(ids) for ids in answers if ids] == [scene.caption, scene.text]


def test_numbers_are_coordinates_in_boxes_only(processor: Processor, scene: Scene):
    one = scene.objects[0]
    turn = grounding_turn(scene, f"the {one.name}", [one.box])
    packed = Packer(processor).pack(processor.tile([scene.image]), [[ocr_turn(scene), turn]])
    x1, y1, x2, y2 = one.box
    wanted = [x1 / scene.image.width, y1 / scene.image.height, x2 / scene.image.width, y2 / scene.image.height]
    marked = [index for index in packed.coordinates_A.tolist() if index >= 0]
    assert marked == [round(100 * share) for share in wanted]
    assert len(COORDINATES) == 101


def test_the_left_side_of_every_box_is_a_first_coordinate(processor: Processor, scene: Scene):
    boxes = [(0, 8, 16, 24), (32, 8, 48, 24)]
    packed = Packer(processor).pack(processor.tile([scene.image]), [[grounding_turn(scene, "circles", boxes)]])
    first = packed.coordinates_A[packed.first_coordinates_A].tolist()
    assert first == [round(100 * box[0] / scene.image.width) for box in boxes]


def test_a_near_coordinate_costs_less_than_a_far_one(processor: Processor, scene: Scene):
    one = scene.objects[0]
    packer = Packer(processor)
    packed = packer.pack(processor.tile([scene.image]), [[grounding_turn(scene, one.name, [one.box])]])
    ids = packer.coordinate_ids
    losses = []
    for off in (0, 2, 20):
        guess = torch.zeros(len(packed.targets_A), 1088)
        for row, coordinate in enumerate(packed.coordinates_A.tolist()):
            if coordinate >= 0:
                guess[row, ids[(coordinate + off) % len(ids)]] = 10
        losses.append(float(answer_loss(guess, packed, ids, sigma=2.0)[0]))
    assert losses == sorted(losses)
    assert losses[0] < losses[1] < losses[2]


def test_routers_turn_to_experts_with_less_than_the_mean_load(folder: Path, processor: Processor):
    model = as_trained(random_model(folder, seed=1), torch.bfloat16)
    stage = JointStage(model, DenseHead(model.config.vision.width).to(torch.bfloat16), processor, num_steps=10)
    stage.loss([scene_seed(9, 0)], step=9)
    loads = [torch.bincount(ids_TK.flatten(), minlength=8) for ids_TK in stage._loads]
    stage.after_step()
    for router, load_E in zip(stage.routers, loads, strict=True):
        moved = router.e_score_correction_bias
        assert (moved[load_E < load_E.float().mean()] > 0).all()
        assert (moved[load_E > load_E.float().mean()] < 0).all()


def test_master_weights_keep_what_bfloat16_would_round_away():
    matrix = torch.nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16))
    vector = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = MasterOptimizer([("matrix", matrix), ("vector", vector)], lr_scales={})
    for _ in range(100):
        vector.grad, matrix.grad = torch.ones_like(vector), torch.randn_like(matrix)
        optimizer.step(rate=0.02)
    assert (vector < 1).all(), "each of the steps is too small for bfloat16, all of them are not"


def test_muon_steps_every_matrix_of_a_stack_as_torch_steps_it_alone():
    torch.manual_seed(0)
    stack, tall = torch.nn.Parameter(torch.randn(3, 8, 16)), torch.nn.Parameter(torch.randn(16, 8))
    theirs = [torch.nn.Parameter(one.clone()) for one in (*stack.detach(), tall.detach())]
    groups = {"lr": 0.1, "weight_decay": 0.05}
    ours = Muon([{"params": [stack, tall], **groups}], dtype=torch.bfloat16)
    reference = torch.optim.Muon([{"params": theirs, **groups}], adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        stack.grad, tall.grad = torch.randn_like(stack), torch.randn_like(tall)
        for one, gradient in zip(theirs, (*stack.grad, tall.grad), strict=True):
            one.grad = gradient.clone()
        ours.step()
        reference.step()
    for one, wanted in zip((*stack, tall), theirs, strict=True):
        torch.testing.assert_close(one, wanted, atol=2e-3, rtol=0)  # theirs normalises in bfloat16 too


def test_ranks_share_the_work_of_muon_without_leaving_any_out(monkeypatch: pytest.MonkeyPatch):
    updates = [torch.ones(shape) for shape in ((8, 8), (8, 16), (16, 8), (3, 4, 4), (2, 2))]
    stacks = [[0], [1, 2], [3], [4]]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    done = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        own = [one for piece in Muon._own(updates, stacks) for one in piece]
        assert own
        done += own
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_start_from_a_checkpoint_leaves_the_dense_stage_out(tmp_path: Path):
    write_architecture(tmp_path / "checkpoint")
    plan = Plan(joint_steps=3, images_per_step=2, start=NANO_FOLDER, start_step=1)
    trainer = Trainer(tmp_path, plan, torch.device("cpu"), rank=0, num_ranks=1)
    before = {name: one.clone() for name, one in trainer.model.named_parameters()}
    trainer.run()
    steps = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in steps] == [("joint", 3)]
    after = dict(trainer.model.named_parameters())
    assert not torch.equal(
        after["language.layers.0.mlp.down_proj.weight"], before["language.layers.0.mlp.down_proj.weight"]
    )


def test_rate_warms_up_and_comes_down():
    rates = [rate(step, 1000) for step in (0, 99, 499, 999)]
    assert rates[0] == pytest.approx(0.01, abs=1e-3)
    assert rates[1] == rates[2] == max(rates), "a plateau, so that the end can still be moved"
    assert rates[3] == pytest.approx(train.LAST_RATE, abs=5e-3)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    dtypes = iter([torch.bfloat16, torch.bfloat16, torch.float32])
    monkeypatch.setattr(train, "fastest_dtype", lambda device: next(dtypes))  # a busy machine may measure otherwise
    plan = Plan(dense_steps=3, joint_steps=4, images_per_step=2)

    def trainer(name: str) -> Trainer:
        write_architecture(tmp_path / name / train.CHECKPOINT_FOLDER)
        return Trainer(tmp_path / name, plan, torch.device("cpu"), rank=0, num_ranks=1)

    trainer("whole").run()

    stage_loss, left = JointStage.loss, [3]

    def loss_until_power_fails(self, seeds, step):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return stage_loss(self, seeds, step)

    with monkeypatch.context() as patch:
        patch.setattr(JointStage, "loss", loss_until_power_fails)
        with pytest.raises(KeyboardInterrupt):
            trainer("stopped").run()
    trainer("stopped").run()

    whole, stopped = (load(tmp_path / name / train.CHECKPOINT_FOLDER).state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)


def test_ranks_share_the_scenes_of_a_step_among_them(tmp_path: Path):
    write_architecture(tmp_path / train.CHECKPOINT_FOLDER)
    plan = Plan(images_per_step=6)
    seeds = [
        list(Trainer(tmp_path, plan, torch.device("cpu"), rank=rank, num_ranks=2)._seeds("joint", 5)) for rank in (0, 1)
    ]
    assert sorted(seeds[0] + seeds[1]) == [scene_seed(2, 30 + index) for index in range(6)]
