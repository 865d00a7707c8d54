import pytest
from tokenizers import Tokenizer

from model.nano.architecture import VOCAB_SIZE
from model.nano.scenes import COLORS, SHAPES, SIZES, WORDS, render_scene
from model.nano.vocabulary import COORDINATES, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def test_every_word_of_the_world_is_one_token_wherever_it_stands(tokenizer: Tokenizer):
    for word in (*WORDS, *COLORS, *SHAPES, *SIZES):
        assert len(tokenizer.encode(f" {word}").ids) == 1, word
        assert len(tokenizer.encode(f"\n{word}").ids) == 2, word


def test_digits_are_single_and_coordinates_of_boxes_are_whole(tokenizer: Tokenizer):
    assert tokenizer.encode("tea 4708").tokens[-4:] == ["4", "7", "0", "8"]
    for coordinate in COORDINATES:
        box = f"[[{coordinate}, {coordinate}, {coordinate}, {coordinate}]]"
        assert tokenizer.encode(box).tokens.count(coordinate) == 4


@pytest.mark.parametrize(
    "text", ["Ölfässer, naïve 日本語 🙂\n\t <|ref|>", "[[123, 7, 999, 12]]", "a  b\r\n 12,5 [1, 2]"]
)
def test_any_text_comes_back_as_it_was(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_what_is_said_of_scenes_is_short(tokenizer: Tokenizer):
    captions = [render_scene(seed).caption for seed in range(50)]
    assert sum(len(tokenizer.encode(caption).ids) for caption in captions) < 0.4 * sum(map(len, captions))


def test_vocabulary_fits_the_embedding(tokenizer: Tokenizer):
    assert VOCAB_SIZE - 64 < tokenizer.get_vocab_size() <= VOCAB_SIZE
