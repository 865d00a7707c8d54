"""What the bench feeds to an engine has the shapes of real work: lengths, tiles, weights, and experts used evenly."""

import dataclasses

import numpy as np
import pytest
import torch

from model.bench.roofline import expected_experts
from model.bench.synthetic import byte_processor, random_model
from model.bench.workload import GRIDS, PROMPTS, NoiseImages, image_work, texts_of, user_message
from model.config import ModelConfig
from model.moe import Router
from model.prompt import Processor
from model.step_layout import StepLayout
from model.variants import RELEASED_VARIANTS, variant_config

NANO = Processor.from_checkpoint("nano")


@pytest.mark.parametrize("variant", RELEASED_VARIANTS)
@pytest.mark.parametrize(("grid", "num_image_tokens"), [("one_tile", 421), ("nine_tiles", 2017)])
def test_every_prompt_has_30_text_tokens_around_those_of_the_image(variant: str, grid: str, num_image_tokens: int):
    work = image_work(byte_processor(variant_config(variant)), GRIDS[grid], PROMPTS, 200)
    assert {work.num_shared_tokens + own for own in work.num_own_tokens} == {num_image_tokens + 30}
    assert work.num_shared_tokens == num_image_tokens + len(["begin", "<|User|>", ":", " "])
    assert work.num_tiles == (2 if grid == "one_tile" else 10)


def test_images_all_differ_in_every_tile():
    images = NoiseImages(NANO).draw(5, (3, 3)) + NoiseImages(NANO, seed=1).draw(1, (3, 3))
    tiles = np.concatenate([image.tiles for image in images])
    assert len({tile.tobytes() for tile in tiles}) == 6 * 10
    assert NANO.tile(images) is not None


def test_texts_of_a_tokenizer_of_bytes_are_as_long_as_asked():
    processor = byte_processor(variant_config("tiny"))
    texts = texts_of(processor, 3, 451)
    assert [len(processor.encode(user_message(text))) for text in texts] == [451] * 3
    assert len(set(texts)) == 3
    assert set(texts).isdisjoint(texts_of(processor, 3, 451, seed=1))


def test_texts_of_a_trained_tokenizer_are_never_longer_than_asked():
    lengths = [len(NANO.encode(user_message(text))) for text in texts_of(NANO, 8, 200)]
    assert max(lengths) <= 200
    assert min(lengths) >= 180


def test_text_past_the_tokenizers_vocabulary_decodes_to_nothing():
    processor = byte_processor(variant_config("bench-150m"))
    assert processor.decode([16_000, 16_383, 1]) == ""


def four_layers() -> ModelConfig:
    config = variant_config("bench-150m")
    return dataclasses.replace(config, language=dataclasses.replace(config.language, num_hidden_layers=4))


def test_random_weights_have_the_dtype_asked_for_and_routers_float32():
    model = random_model(four_layers(), device="cpu", dtype=torch.bfloat16)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    routers = {name for name in dtypes if ".mlp.gate." in name}
    assert len(routers) == 3
    assert {dtypes[name] for name in routers} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name not in routers} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@torch.inference_mode()
def test_random_routers_use_about_as_many_experts_as_a_uniform_choice_would():
    config = four_layers()
    model = random_model(config, device="cpu", dtype=torch.float32)
    tokens = torch.randint(0, config.language.vocab_size, (256,), generator=torch.Generator().manual_seed(0))
    chosen: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, Router):
            module.register_forward_hook(lambda module, inputs, outputs: chosen.append(outputs[0]))
    model.language(model.language.embed_tokens(tokens), StepLayout.whole_sequence(256, torch.device("cpu")))
    assert len(chosen) == 3
    for ids_TK in chosen:
        hit_by_eight = [len(ids.unique()) for ids in ids_TK.split(8)]
        assert np.mean(hit_by_eight) == pytest.approx(expected_experts(config.language, 8), rel=0.1)
        counts = ids_TK.flatten().bincount(minlength=32)
        assert counts.max() <= 2 * counts.float().mean()
