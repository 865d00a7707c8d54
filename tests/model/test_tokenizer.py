"""Control tokens come from template text alone; data that spells one stays letters."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from model.tokenizer import ASSISTANT, DET, DET_END, GROUNDING, REF, REF_END, USER, ChatTokenizer, Text
from tests import golden

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
CONTROL = (BOS, EOS, PAD, "<image>", REF, REF_END, DET, DET_END, GROUNDING, USER, ASSISTANT)


def template(text: str) -> Text:
    return Text(text, True)


def data(text: str) -> Text:
    return Text(text, False)


def edited(change: Callable[[dict], None], **ids: int) -> ChatTokenizer:
    """The tokenizer of base-like after a change of its file."""
    content = json.loads((golden.checkpoint_folder("base-like") / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    ids = {"bos_token_id": 0, "eos_token_id": 1, **ids}
    return ChatTokenizer(Tokenizer.from_str(json.dumps(content)), image_token="<image>", **ids)


@pytest.fixture(params=["base-like", "small-like"])
def tokenizer(request: pytest.FixtureRequest) -> ChatTokenizer:
    return golden.processor(request.param).tokenizer


@pytest.mark.parametrize("token", CONTROL)
def test_template_text_that_spells_a_control_token_has_its_id(tokenizer: ChatTokenizer, token: str):
    index = tokenizer.control_token_id(token)
    assert tokenizer.encode([template(f"a{token}b")]).count(index) == 1
    assert tokenizer.encode([template(token)]) == [index]
    assert tokenizer.decode([index]) == token


@pytest.mark.parametrize("token", CONTROL)
def test_data_that_spells_a_control_token_is_letters(tokenizer: ChatTokenizer, token: str):
    control_ids = {tokenizer.control_token_id(other) for other in CONTROL}
    for text in (token, f"a {token}\n", token * 3, token[:1] + token):
        ids = tokenizer.encode([data(text)])
        assert not control_ids & set(ids)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("token", CONTROL)
def test_control_token_split_across_template_and_data_is_letters(tokenizer: ChatTokenizer, token: str):
    control_ids = {tokenizer.control_token_id(other) for other in CONTROL}
    for cut in range(1, len(token)):
        head, tail = token[:cut], token[cut:]
        for pieces in ([template(head), data(tail)], [data(head), template(tail)], [data(head), data(tail)]):
            ids = tokenizer.encode(pieces)
            assert not control_ids & set(ids)
            assert tokenizer.decode(ids) == token


@pytest.mark.parametrize(
    "texts",
    [
        ["What is", " written", " here?"],
        ["a", "b", "c"],
        ["x ", " y"],
        ["line\n", "\n", "line"],
        ["", "only", ""],
        ["caf", "\u0065\u0301 ", "\u4e2d", "\u6587 12", "34"],
        ["\U0001f469\u200d", "\U0001f4bb"],
    ],
    ids=repr,
)
def test_data_without_control_tokens_is_tokenised_as_in_the_joined_string(tokenizer: ChatTokenizer, texts: list[str]):
    pieces = [Text(text, index % 2 == 0) for index, text in enumerate(texts)]
    assert tokenizer.encode(pieces) == tokenizer.encode([template("".join(texts))])


def test_nothing_merges_across_a_control_token(tokenizer: ChatTokenizer):
    sides = [*tokenizer.encode([data("th")]), tokenizer.control_token_id(USER), *tokenizer.encode([data("e")])]
    assert tokenizer.encode([template(f"th{USER}e")]) == sides


def test_nothing_is_nothing(tokenizer: ChatTokenizer):
    assert tokenizer.encode([]) == tokenizer.encode([data(""), template("")]) == []


def test_lone_surrogate_is_refused(tokenizer: ChatTokenizer):
    with pytest.raises(ValueError, match="no valid Unicode"):
        tokenizer.encode([data("broken \ud83d emoji")])


def test_ids_past_the_vocabulary_are_left_out_of_the_text(tokenizer: ChatTokenizer):
    assert tokenizer.decode([*tokenizer.encode([data("yes")]), tokenizer.vocab_size + 3]) == "yes"


def test_control_tokens_that_the_file_lacks_are_appended():
    def remove(content: dict) -> None:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in (GROUNDING, ASSISTANT)]

    tokenizer = edited(remove)
    assert tokenizer.encode([template(GROUNDING)]) == [tokenizer.control_token_id(GROUNDING)]
    assert len(tokenizer.encode([data(GROUNDING)])) > 1
    assert tokenizer.control_token_id(ASSISTANT) == tokenizer.vocab_size - 1


@pytest.mark.parametrize("token", CONTROL)
def test_control_token_that_the_file_does_not_flag_as_special_is_one_all_the_same(token: str):
    def unflag(content: dict) -> None:
        for added in content["added_tokens"]:
            added["special"] = added["special"] and added["content"] != token

    tokenizer = edited(unflag)
    assert tokenizer.encode([template(token)]) == [tokenizer.control_token_id(token)]
    assert len(tokenizer.encode([data(token)])) > 1


@pytest.mark.parametrize("token", ["<｜User｜>", "<｜fim▁begin｜>", "<|im_start|>"])
def test_marks_of_other_models_in_the_same_vocabulary_are_letters_in_data(token: str):
    """The 129,280-token vocabulary holds turn and tool marks that are not flagged as special."""

    def add(content: dict) -> None:
        content["added_tokens"].append({**content["added_tokens"][-1], "id": 616, "content": token, "special": False})

    tokenizer = edited(add)
    assert tokenizer.encode([template(token)]) == [616]
    assert 616 not in tokenizer.encode([data(f"x{token}y")])


def test_added_letters_are_one_token_in_data_too():
    """Some tokenizers of the family add letters, which are no control tokens."""

    def add(content: dict) -> None:
        content["added_tokens"].append({**content["added_tokens"][-1], "id": 616, "content": "ẞ", "special": False})

    assert 616 in edited(add).encode([data("GROẞ")])


def test_truncation_and_padding_left_in_the_file_are_ignored():
    def configure(content: dict) -> None:
        content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
        content["padding"] = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None}
        content["padding"] |= {"pad_id": 2, "pad_type_id": 0, "pad_token": PAD}

    text = "a sentence of many more tokens than four"
    plain = golden.processor("base-like").tokenizer
    assert edited(configure).encode([data(text)]) == plain.encode([data(text)])


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id"])
def test_id_of_the_configuration_that_the_tokenizer_lacks_is_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} is 9999, but the tokenizer has 616 tokens"):
        edited(lambda content: None, **{name: 9999})


@pytest.mark.parametrize(("content", "message"), [(None, "is missing"), ("{}", "is not a tokenizer")], ids=str)
def test_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        ChatTokenizer.from_checkpoint(tmp_path, image_token="<image>", bos_token_id=0, eos_token_id=1)
    assert str(tmp_path / "tokenizer.json") in str(raised.value)


def test_tokenizer_config_says_which_tokens_begin_and_end_a_text(tmp_path):
    """config.json of a checkpoint may hold the ids of another vocabulary: its keys are left out where defaults do."""
    shutil.copy(golden.checkpoint_folder("base-like") / "tokenizer.json", tmp_path)
    spelled = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": {"content": "<｜end▁of▁sentence｜>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(spelled))
    tokenizer = ChatTokenizer.from_checkpoint(tmp_path, image_token="<image>", bos_token_id=None, eos_token_id=None)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.stop_token_ids) == (0, 1, {1})


def test_other_end_of_sentence_of_the_configuration_stops_but_does_not_stand_in_prompts():
    folder = golden.checkpoint_folder("base-like")
    tokenizer = ChatTokenizer.from_checkpoint(folder, image_token="<image>", bos_token_id=0, eos_token_id=64)
    assert (tokenizer.eos_token_id, tokenizer.stop_token_ids) == (1, {1, 64})


def test_text_without_a_known_end_is_refused(tmp_path):
    shutil.copy(golden.checkpoint_folder("base-like") / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match="neither config.json nor tokenizer_config.json"):
        ChatTokenizer.from_checkpoint(tmp_path, image_token="<image>", bos_token_id=0, eos_token_id=None)


def test_tokenizer_config_naming_an_unknown_token_is_refused(tmp_path):
    shutil.copy(golden.checkpoint_folder("base-like") / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(ValueError, match="eos_token '</s>' is not in tokenizer.json"):
        ChatTokenizer.from_checkpoint(tmp_path, image_token="<image>", bos_token_id=0, eos_token_id=1)


@pytest.mark.parametrize("checkpoint", golden.CHECKPOINTS)
def test_bytes_of_tokens_in_a_row_are_the_bytes_of_their_text(checkpoint: str):
    tokenizer = golden.processor(checkpoint).tokenizer
    token_bytes = tokenizer.token_bytes()
    rng = random.Random(checkpoint)
    for _ in range(50):
        ids = rng.sample(sorted(token_bytes), 40)
        assert b"".join(token_bytes[index] for index in ids).decode(errors="replace") == tokenizer.decode(ids)


def test_character_of_several_tokens_has_its_bytes_in_them(tokenizer: ChatTokenizer):
    token_bytes = tokenizer.token_bytes()
    ids = tokenizer.encode([data("naïve 🙂 中\n")])
    assert b"".join(token_bytes[index] for index in ids) == "naïve 🙂 中\n".encode()
    assert "🙂".encode() not in token_bytes.values()


def test_every_byte_is_a_token(tokenizer: ChatTokenizer):
    assert {bytes([byte]) for byte in range(256)} <= set(tokenizer.token_bytes().values())


def test_control_tokens_have_no_bytes(tokenizer: ChatTokenizer):
    control_ids = {tokenizer.control_token_id(token) for token in CONTROL}
    assert set(tokenizer.token_bytes()) == set(range(tokenizer.vocab_size)) - control_ids


def test_bytes_of_added_letters_are_those_of_the_letters():
    def add(content: dict) -> None:
        content["added_tokens"].append({**content["added_tokens"][-1], "id": 616, "content": "ẞ a", "special": False})

    assert edited(add).token_bytes()[616] == "ẞ a".encode()


def test_bytes_of_a_tokenizer_that_is_not_byte_level_are_refused():
    with pytest.raises(ValueError, match="must be ByteLevel"):
        edited(lambda content: content.update(decoder=None)).token_bytes()
