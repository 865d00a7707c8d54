"""Degenerate answers are caught by the gate meant for them, ordinary ones pass all gates, and any text is judged."""

import random
from collections import Counter

import pytest

from pipeline.gates.code import why_code_is_broken
from pipeline.gates.quotations import quotations_of
from pipeline.quality import Finding, Judged, judge
from pipeline.recipes.boxes import Box, parse_boxes
from schemas.gates import GatesSpec
from tests.pipeline import degenerate, held_out, unseen_degenerate, unseen_ordinary
from tests.pipeline.degenerate import Degenerate
from tests.pipeline.ordinary import ORDINARY

TEXT_GATES = tuple(name for name in GatesSpec.model_fields if name not in ("boxes", "duplicate"))
ALL = GatesSpec(**{name: {} for name in TEXT_GATES})
OWN_WORDS = GatesSpec(**{name: {"own_words": True} if name in ("repetition", "marks") else {} for name in TEXT_GATES})
"""For captions and answers, which are no transcriptions."""
WIDTH, HEIGHT = 640, 480


def judged(text: str, gates: GatesSpec = ALL, **told: object) -> tuple[Finding, ...]:
    values = {"finish_reason": "stop", "mean_logprob": -0.3, "num_output_tokens": 9, **told}
    return judge(Judged(text=text, **values), gates)


def gates_that_find(case: Degenerate) -> set[str]:
    if case.gate != "boxes":
        return {finding.gate for finding in judged(case.text, OWN_WORDS if case.own_words else ALL, **case.told)}
    told: dict = {"width_px": WIDTH, "height_px": HEIGHT}
    if "<|det|>" in case.text:
        parsed = parse_boxes(case.text, default_label="dog", width_px=WIDTH, height_px=HEIGHT)
        told |= {"boxes": parsed.boxes, "parse_flags": parsed.flags}
    return {finding.gate for finding in judged(case.text, GatesSpec(boxes={}), **told)}


def flags(name: str, text: str, *, gate: dict | None = None, **told: object) -> list[str]:
    return [finding.flag for finding in judged(text, GatesSpec(**{name: gate or {}}), **told)]


def test_every_degenerate_answer_is_caught_by_its_gate():
    missed = [(case.gate, case.text[:60]) for case in degenerate.DEGENERATE if case.gate not in gates_that_find(case)]
    assert missed == []


def test_degenerate_answers_are_many_and_of_every_gate():
    counts = Counter(case.gate for case in degenerate.DEGENERATE)
    assert counts.total() >= 60
    assert set(counts) == {*TEXT_GATES, "boxes"}


def test_of_ordinary_answers_one_in_a_hundred_at_most_is_flagged():
    gates = [OWN_WORDS if "question" in told else ALL for _, told in ORDINARY]
    judgements = [judged(text, one, **told) for (text, told), one in zip(ORDINARY, gates, strict=True)]
    flagged = {text[:60]: found for (text, _), found in zip(ORDINARY, judgements, strict=True) if found}
    assert len(ORDINARY) >= 200
    assert len({text for text, _ in ORDINARY}) > 0.95 * len(ORDINARY)
    assert len(flagged) <= len(ORDINARY) // 100, flagged


def test_answers_that_were_held_out_are_judged_nearly_as_well():
    missed = [case.text[:60] for case in held_out.DEGENERATE if case.gate not in gates_that_find(case)]
    ordinary = [(text, question) for question, texts in held_out.ORDINARY for text in texts]
    flagged = [text[:60] for text, question in ordinary if judged(text, question=question)]
    assert len(missed) <= 0.05 * len(held_out.DEGENERATE), missed
    assert len(flagged) <= 0.02 * len(ordinary), flagged


def test_answers_of_somebody_who_had_not_seen_the_detectors_are_judged_as_well():
    missed = [case.text[:60] for case in unseen_degenerate.DEGENERATE if case.gate not in gates_that_find(case)]
    judgements = {
        **{text: judged(text, OWN_WORDS) for text in unseen_ordinary.CAPTIONS},
        **{text: judged(text) for text in unseen_ordinary.TRANSCRIPTIONS},
        **{pair: judged(pair[1], OWN_WORDS, question=pair[0]) for pair in unseen_ordinary.ANSWERS},
    }
    flagged = {text: found for text, found in judgements.items() if found}
    assert missed == []
    assert len(judgements) >= 290
    assert len(flagged) <= len(judgements) // 100, flagged


def test_gate_that_is_not_given_does_not_judge():
    assert judged("", GatesSpec(), finish_reason="length") == ()


def test_finding_carries_the_flag_of_the_table_and_what_the_recipe_wants():
    (finding,) = judged(" ", GatesSpec(empty={"then": "reject"}))
    assert (finding.gate, finding.flag, finding.then) == ("empty", "output_empty", "reject")
    assert finding.detail == "' ' says nothing"


def test_findings_come_in_the_order_of_the_gates():
    gates = [finding.gate for finding in judged("<|User|>", finish_reason="length", mean_logprob=-9.0)]
    assert gates == ["truncated", "empty", "marks", "low_logprob"]


@pytest.mark.parametrize(
    ("finish_reason", "flag"), [("stop", []), ("length", ["output_truncated"]), ("loop", ["output_looped"])]
)
def test_reason_of_the_end_is_told_apart(finish_reason: str, flag: list[str]):
    assert flags("truncated", "A dog", finish_reason=finish_reason) == flag


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("cat " * 30, {"min_repeats": 4}),
        ("." * 300, {"max_run_chars": 70}),
        ("Stay here. Now go home. " * 7, {"min_repeats": 7}),
    ],
)
def test_threshold_of_repetition_moves_its_verdict(text: str, gate: dict):
    assert flags("repetition", text, gate=gate) == ["repetition"]
    assert flags("repetition", text, gate={name: 4 * value for name, value in gate.items()}) == []


@pytest.mark.parametrize(
    "filler", ["word", "字", "| a |\n", "(", "<a ", "<|", '"a', "1,", "Ã©", "Ã", "РС", "$ a", "- "]
)
def test_hundred_thousand_characters_of_anything_are_judged(filler: str):
    """Also what takes some parsers quadratic time: none of these would come to an end."""
    text = (filler * 100_000)[:100_000]
    for language in ("python", "html", "json", "latex"):
        why_code_is_broken(text, language)
    found = judged(text, question="What is in the picture?", ocr_text=text)
    assert "repetition" in {finding.gate for finding in found}


def test_random_characters_are_judged():
    draw = random.Random(9)
    alphabet = "aé字かข\n\t\0\ud800\ufffd<|>{}[]()\"'“”「$\\.,-&;=0१٣ _🙂\u200d\u0301"
    for _ in range(400):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(60)))
        for language in ("python", "html", "json", "latex"):
            found = judged(text, code_language=language, question=text[::-1], ocr_text=text[::2])
            assert all(finding.detail for finding in found)


@pytest.mark.parametrize(
    "filler", ["word ", "\n", "\nUser:", "[object]", "<insert a ", "[put a a ", "«", "1 2 ", "- . "]
)
def test_hundred_thousand_characters_of_an_answer_in_own_words_are_judged(filler: str):
    text = (filler * 100_000)[:100_000]
    assert judged(text, OWN_WORDS, question="What is in the picture?") != ()


def test_word_that_comes_again_is_a_loop_in_own_words_alone():
    own_words = {"own_words": True}
    assert flags("repetition", "blue " * 8, gate=own_words) == ["repetition"]
    for text in ("blue " * 7, "blue, " * 8, "ha " * 9, 'It cries "' + "Now " * 9 + '".', "Buffalo buffalo " * 4):
        assert flags("repetition", text, gate=own_words) == []
    assert flags("repetition", "blue " * 8) == []


def test_piece_that_is_the_whole_answer_is_a_loop_sooner_in_own_words_alone():
    own_words = {"own_words": True}
    for text in ("The sign on the wall has a sign on the wall. " * 3, "A man, " + "another man, " * 8):
        assert flags("repetition", text, gate=own_words) == ["repetition"]
        assert flags("repetition", text) == []


def test_transcription_may_have_a_line_six_times_and_own_words_may_not():
    lines = "I must not talk in class.\n"
    assert flags("repetition", lines * 6) == []
    assert flags("repetition", lines * 7) == ["repetition"]
    assert flags("repetition", lines * 6, gate={"own_words": True}) == ["repetition"]


def test_transcription_may_have_a_refrain_where_all_lines_differ():
    verses = [f"O ye {one}, bless ye the Lord, praise him for ever." for one in ("sun", "moon", "stars", "dew", "ice")]
    hymn = [verse.replace("ye ", f"ye {kind} ", 1) for kind in ("old", "new", "high", "low") for verse in verses]
    assert flags("repetition", "\n".join(hymn)) == []
    assert flags("repetition", " ".join(hymn)) == ["repetition"]
    assert flags("repetition", "\n".join(hymn), gate={"own_words": True}) == ["repetition"]


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (" ".join(map(str, range(1, 101))), []),
        (" ".join(map(str, range(1, 201))), ["repetition"]),
        (", ".join(f"{12.5 + 0.1 * n:.1f}" for n in range(220)), ["repetition"]),
        (" ".join(f"[[{n}, {n + 40}, 9, {n + 7}]]" for n in range(50)), ["repetition"]),
        ("\n".join(f"{n}. {chr(97 + n % 26)}{chr(97 + n * 7 % 23)}{chr(97 + n // 26)}" for n in range(1, 250)), []),
        (" ".join(str(n * n % 97) for n in range(300)), []),
    ],
)
def test_answer_that_only_counts_for_hundreds_of_steps_is_a_loop(text: str, flag: list[str]):
    assert flags("repetition", text) == flag


@pytest.mark.parametrize("sign", ["!", "?", "#", "-", "... --- ..."])
def test_one_sign_answers_a_question_and_nothing_else(sign: str):
    assert flags("empty", sign, question="Which sign is on the key?") == []
    assert flags("empty", sign) == ["output_empty"]


@pytest.mark.parametrize("sign", ["...", "- -", ".", '""', "。"])
def test_what_is_left_of_an_answer_answers_no_question(sign: str):
    assert flags("empty", sign, question="Which sign is on the key?") == ["output_empty"]


@pytest.mark.parametrize(
    "text",
    [
        "I'm unable to transcribe this document.",
        "I don't see any image here. Can you share it again?",
        "This content may violate our usage policies.",
        "Answer: I'm sorry, but I can't assist with that.",
        "Leider kann ich als KI keine Bilder sehen.",
        "माफ़ कीजिए, मैं इस तस्वीर का वर्णन नहीं कर सकता।",
        "\"I'm sorry, but I can't assist with that.\"",
    ],
)
def test_refusal_speaks_for_the_model(text: str):
    assert flags("refusal", text) == ["refusal"]


@pytest.mark.parametrize(
    "text",
    [
        "It replies \"I'm sorry, but as an AI language model I can't give medical advice.\"",
        "The chatbot says I'm sorry, but I can't assist with that.",
        'A dialogue with the message "No image selected. Please upload an image',
        "“I'm sorry, but I can't assist with that” stands on the shirt.",
        "I don't see any image of a dog on the shirt.",
    ],
)
def test_refusal_that_is_quoted_or_told_of_is_none(text: str):
    assert flags("refusal", text) == []


@pytest.mark.parametrize(
    "text", ["[insert caption here]", "A photo of [object] in [location].", "<answer>", "TODO: write description"]
)
def test_placeholder_is_found_in_own_words_alone(text: str):
    assert flags("marks", text, gate={"own_words": True}) == ["placeholder"]
    assert flags("marks", f'The form says "{text}".', gate={"own_words": True}) == []
    assert flags("marks", text) == []


@pytest.mark.parametrize("text", ["Dear [Name],", "TODO: call Ann", "[illegible] of [illegible]", "<br>", "a[size]"])
def test_brackets_of_another_kind_are_no_placeholder(text: str):
    assert flags("marks", text, gate={"own_words": True}) == []


def test_turn_of_the_user_after_an_answer_is_found_and_an_account_of_a_dialogue_is_not():
    chat = "User: And the second?\nAssistant: No."
    assert flags("marks", f"Yes.\n\n{chat}", gate={"own_words": True}) == ["marks"]
    assert flags("marks", f"{chat}\n{chat}", gate={"own_words": True}) == []
    assert flags("marks", f"Yes.\n\n{chat}") == []


def test_statement_in_the_words_of_the_question_is_an_answer():
    question = "¿El hombre lleva un sombrero rojo?"
    assert flags("echo", "El hombre lleva un sombrero rojo.", question=question) == []
    assert flags("echo", "El hombre lleva un sombrero rojo?", question=question) == ["echo"]


def test_short_question_may_come_back():
    assert flags("echo", "STOP", question="STOP") == []
    assert flags("echo", "STOP", question="STOP", gate={"min_words": 1}) == ["echo"]


def test_boilerplate_may_be_let_pass_and_refusals_then_are_not():
    text = "The image you provided shows a dog."
    assert flags("refusal", text) == ["boilerplate"]
    assert flags("refusal", text, gate={"boilerplate": False}) == []
    assert flags("refusal", "I'm sorry, I can't help with that.", gate={"boilerplate": False}) == ["refusal"]


def test_language_of_the_instruction_counts_where_nothing_was_asked():
    text = "The man is riding a bicycle along the river."
    assert flags("language", text, instruction="请描述这张图片。") == ["wrong_language"]
    assert flags("language", text, instruction="请描述这张图片。", question="What is he doing?") == []
    assert flags("language", text, instruction="Describe the image.") == []


def test_wanted_language_counts_before_that_of_the_question():
    text = "Der Mann fährt mit dem Fahrrad am Fluss entlang."
    assert flags("language", text, question="What is the man doing?", language="de") == []
    assert flags("language", text, question="Was macht der Mann?", language="fr") == ["wrong_language"]


def test_simplified_and_traditional_chinese_are_one_language():
    assert flags("language", "兩位老人正在公園裡下棋,旁邊圍著許多觀眾。", question="图片中的老人在做什么?") == []


def test_text_that_stands_in_the_image_may_be_in_any_language():
    text, question = "Défense de fumer sous peine d'amende", "What is on the board?"
    assert flags("language", text, question=question, ocr_text=text.upper()) == []
    assert flags("language", text, question=question) == ["wrong_language"]


@pytest.mark.parametrize(
    ("read", "flag"), [("G0LDEN DRAG0N", []), ("Golden Dr@gon", []), ("Silver Fox", ["ocr_disagrees"])]
)
def test_quotation_is_found_in_a_similar_spelling(read: str, flag: list[str]):
    assert flags("ocr_agreement", 'The sign says "Golden Dragon".', ocr_text=read) == flag


def test_without_an_ocr_text_or_a_quotation_nothing_can_disagree():
    assert flags("ocr_agreement", 'The sign says "Golden Dragon".') == []
    assert flags("ocr_agreement", "It is 5' 11\" tall.", ocr_text="Silver Fox") == []


def test_share_of_quotations_is_what_counts():
    text = 'It says "Golden Dragon", "Open daily" and "Welcome".'
    assert flags("ocr_agreement", text, ocr_text="GOLDEN DRAGON") == ["ocr_disagrees"]
    assert flags("ocr_agreement", text, ocr_text="GOLDEN DRAGON", gate={"min_share": 0.3}) == []


def test_quotations_of_several_scripts_are_found():
    text = '“one” 「two」 『three』 «four» „five“ "six" it\'s'
    assert quotations_of(text) == ["one", "two", "three", "four", "five", "six"]


def boxes(*corners: tuple[float, float, float, float], labels: str = "aaaaaa") -> tuple[Box, ...]:
    return tuple(
        Box(label=label, x1=x1, y1=y1, x2=x2, y2=y2) for label, (x1, y1, x2, y2) in zip(labels, corners, strict=False)
    )


def faults_of(*corners: tuple[float, float, float, float], gate: dict | None = None, **told: object) -> list[str]:
    labels = str(told.pop("labels", "aaaaaa"))
    told = {"width_px": WIDTH, "height_px": HEIGHT, **told}
    return flags("boxes", "", gate=gate, boxes=boxes(*corners, labels=labels), **told)


def test_boxes_inside_of_the_image_pass():
    assert faults_of((0, 0, 100, 100), (300.5, 200, 640, 480)) == []
    assert faults_of() == []


@pytest.mark.parametrize(
    ("corners", "flag"),
    [
        ((10, 10, 645, 100), "boxes_outside"),
        ((-5, 10, 50, 100), "boxes_outside"),
        ((10, 10, 10.5, 100), "boxes_degenerate"),
        ((50, 10, 20, 100), "boxes_degenerate"),
        ((10, float("nan"), 20, 100), "boxes_degenerate"),
        ((0, 0, 640, 480), "boxes_whole_image"),
    ],
)
def test_box_in_a_place_of_no_thing_is_found(corners: tuple, flag: str):
    assert faults_of((100, 100, 200, 200), corners) == [flag]


def test_near_duplicates_are_of_one_label():
    close = (100, 100, 200, 200), (100, 101, 200, 201)
    assert faults_of(*close) == ["boxes_duplicate"]
    assert faults_of(*close, labels="ab") == []
    assert faults_of(*close, gate={"max_iou": 0.99}) == []


def test_too_many_boxes_are_counted():
    many = [(10 * n, 10, 10 * n + 8, 20) for n in range(5)]
    assert faults_of(*many, gate={"max_boxes": 5}) == []
    assert faults_of(*many, gate={"max_boxes": 4}) == ["boxes_too_many"]


def test_faults_that_the_parser_found_are_among_the_findings():
    told = {"parse_flags": ("boxes_absent", "score_absent")}
    assert faults_of(**told) == ["boxes_absent"]
    assert faults_of(gate={"parse_flags": ["boxes_malformed"]}, **told) == []


@pytest.mark.parametrize(
    ("mean_logprob", "flag"), [(-1.4, []), (-1.6, ["low_logprob"]), (float("nan"), ["low_logprob"])]
)
def test_unlikely_answer_is_flagged_unless_it_is_short(mean_logprob: float, flag: list[str]):
    assert flags("low_logprob", "x", mean_logprob=mean_logprob, num_output_tokens=4) == flag
    assert flags("low_logprob", "x", mean_logprob=mean_logprob, num_output_tokens=3) == []


@pytest.mark.parametrize(
    "text",
    ["Größe 42", "“MAÇÃ”", "Spaß“", "a < b | c > d", "x |> f", "▁▂▃▅▇", "Ça va, été", "“café”…", "naïve café — 5 µm"],
)
def test_letters_and_signs_of_many_languages_are_no_marks(text: str):
    assert flags("marks", text) == []


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("html", "<td>a<td>b<tr>"),
        ("html", "<!-- <div> --><p>a</p>"),
        ("html", "<style>a > b { } </style><script>'<div>'</script>"),
        ("html", '<a title="x > y">z</a>'),
        ("latex", "\\left\\{ x \\right. \\% {a}"),
        ("latex", "distance = speed times time taken"),
        ("latex", "\\text{for all real numbers x}"),
        ("javascript", "(((("),
    ],
)
def test_code_that_can_be_read_passes(language: str, code: str):
    assert why_code_is_broken(code, language) is None


@pytest.mark.parametrize(
    ("language", "code", "why"),
    [
        ("python", "# nothing", "no statement"),
        ("python", "a\0b", "null bytes"),
        ("html", "only text", "no tag"),
        ("html", "<script>a", "<script> does not end"),
        ("html", "</div>", "ends what was not begun"),
        ("latex", "\\begin{array} {a \\end{array}", "ends what was not begun"),
        ("latex", "\\frac{1}{2", "does not end"),
        ("latex", "\\quad \\, \\hspace{2em}", "nothing in it"),
        ("latex", "This shows the area of a circle.", "a sentence"),
        ("html", "<table><tbody></tbody></table>", "no cell"),
    ],
)
def test_code_that_cannot_be_read_says_why(language: str, code: str, why: str):
    assert why in str(why_code_is_broken(code, language))
