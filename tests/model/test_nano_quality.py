"""The built-in checkpoint sees, and needs every part of the architecture to.

Each test scores labels of scenes it was not trained on, then takes one part away: what falls is what that part does.
The floors lie well below what the model card states, as these are few scenes.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model.checkpoint import load
from model.checkpoint_files import NANO_FOLDER
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig
from model.kernels import paged_latent_decode_cpu
from model.kv_cache import LayerCache
from model.moe import Router
from model.nano.evaluate import evaluate, expert_loads
from model.nano.scenes import Scene, World, render_scene, scene_seed
from model.nano.scores import Scores
from model.prompt import Processor

SEED = 777
CONFIG = EngineConfig(max_num_sequences=48)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(scene_seed(SEED, index)) for index in range(24)]


@pytest.fixture(scope="module")
def small_print() -> list[Scene]:
    """Pages whose print is legible in the local tiles only."""
    pages = (render_scene(scene_seed(SEED, index), World(page_share=1, small_print_share=1)) for index in range(40))
    return [page for page in pages if page.layout.text and page.layout.text.print_size == "small"][:10]


def nano() -> DeepseekVL2:
    return load("nano")


def score(model: DeepseekVL2, scenes: list[Scene], *, tasks: tuple[str, ...], with_local_tiles: bool = True) -> Scores:
    with Engine(model, Processor.from_checkpoint(NANO_FOLDER), config=CONFIG) as engine:
        return evaluate(engine, scenes, tasks=tasks, with_local_tiles=with_local_tiles)


@pytest.fixture(scope="module")
def whole(scenes: list[Scene]) -> Iterator[tuple[Scores, list[Tensor]]]:
    model = nano()
    with expert_loads(model) as loads:
        yield score(model, scenes, tasks=("caption", "ocr", "qa", "grounding")), loads


def test_captions_name_what_is_there(whole: tuple[Scores, list[Tensor]]):
    assert whole[0].object_f1 > 0.75


def test_questions_are_answered(whole: tuple[Scores, list[Tensor]]):
    assert whole[0].answers.share > 0.8


def test_text_is_read(whole: tuple[Scores, list[Tensor]]):
    assert whole[0].character_error_rate < 0.25


def test_boxes_lie_on_what_is_named(whole: tuple[Scores, list[Tensor]]):
    assert whole[0].box_share > 0.5


def test_every_expert_is_used(whole: tuple[Scores, list[Tensor]]):
    for load_E in whole[1]:
        assert load_E.min() > 0.2 * load_E.mean()


def test_small_print_is_read_in_the_local_tiles(small_print: list[Scene]):
    with_tiles = score(nano(), small_print, tasks=("ocr",))
    without = score(nano(), small_print, tasks=("ocr",), with_local_tiles=False)
    assert without.character_error_rate > 0.5 > with_tiles.character_error_rate


def test_reading_and_captions_need_the_experts_that_the_router_means(
    scenes: list[Scene], whole: tuple[Scores, list[Tensor]]
):
    """A bias that sends every token to the same two experts."""
    model = nano()
    for router in model.modules():
        if isinstance(router, Router):
            bias = router.e_score_correction_bias
            bias.copy_(torch.tensor([10.0, 10.0, *[0.0] * (len(bias) - 2)]))
    broken = score(model, scenes, tasks=("caption", "ocr"))
    assert broken.object_f1 < whole[0].object_f1 - 0.1
    assert broken.character_error_rate > whole[0].character_error_rate


def test_labels_need_the_latents_that_the_cache_holds(
    scenes: list[Scene], whole: tuple[Scores, list[Tensor]], monkeypatch: pytest.MonkeyPatch
):
    """A cache that gives each token its neighbour's latent, and the right rotated key."""
    read = LayerCache.read
    latent_width = nano().config.language.kv_lora_rank

    def shifted(self: LayerCache, pages: Tensor) -> Tensor:
        rows = read(self, pages)
        return torch.cat([rows.roll(1, dims=-2)[..., :latent_width], rows[..., latent_width:]], dim=-1)

    monkeypatch.setattr(LayerCache, "read", shifted)
    monkeypatch.setattr(paged_latent_decode_cpu, "_library", lambda: None)  # it reads where the rows lie
    broken = score(nano(), scenes, tasks=("caption", "ocr"))
    assert broken.object_f1 < whole[0].object_f1 - 0.1
    assert broken.character_error_rate > whole[0].character_error_rate + 0.1
