# ruff: noqa: E501 - one text a line
"""Answers as models give them when they fail, each with the gate that must catch it, and what it was judged against.

Shapes seen in the outputs of vision-language models: loops that end where the tokens do, lists of boxes that are none,
echoes of the prompt, phrases of chat models, a change of language, broken decoding.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Degenerate:
    gate: str
    text: str
    told: dict[str, Any] = field(default_factory=dict)
    """Further fields of `Judged`."""
    own_words: bool = False
    """No transcription: judged as captions and answers are."""


def _asked(question: str, **told: Any) -> dict[str, Any]:
    return {"question": question, **told}


_RED_BUS = "The image shows a red bus parked in front of a building. "

LOOPS = [
    _RED_BUS * 12,
    "A man is standing on the beach. " + "He is wearing a hat and sunglasses. " * 20 + "He is wear",
    "The sky is blue, the grass is green, " + "and the sun is shining, " * 25,
    "\n".join(f"{n}. The person on the left is looking at the camera." for n in range(1, 40)),
    " ".join(f"{n}. The man is wearing a black shirt and holding a phone." for n in range(1, 30)),
    "| Item | Price |\n| --- | --- |\n" + "|  |  |\n" * 150,
    "| Name | Value |\n|---|---|\n| a | 1 |" + "  |" * 300,
    "EXIT\n" * 60,
    "Total: $5.00\n" * 40,
    "[[0, 50, 55, 99], " * 40 + "[0, 50",
    "0" * 200,
    "The price is 9" + "9" * 120,
    "!" * 256,
    "a photo of a cat " + "cat " * 100,
    "wooden " * 64,
    "The table shows the results. " + "." * 400,
    "Stop " + "-" * 500,
    "The building has " + ", ".join(["a red roof and white walls with windows"] * 15),
    "".join(f"The building has a {n}. " for n in ["window", "door", "roof", "wall", "gate", "fence", "chimney", "balcony", "stair", "column", "arch", "tower"]
            for _ in range(3)),
    "This is a picture of a dog. The dog is brown. " + "The dog is sitting on the grass. The grass is green. " * 14,
    "\\frac{1}{2} + " * 60,
    "\\begin{array}{c}" + " \\\\ & " * 120,
    "<table>" + "<tr><td></td><td></td><td></td></tr>" * 90,
    "<td>" * 200,
    "import matplotlib.pyplot as plt\n" + "plt.plot([1, 2, 3], [4, 5, 6])\n" * 60,
    '{"label": "car", "box": [1, 2, 3, 4]}, ' * 50,
    "图片中有一辆红色的汽车。" * 20,
    "这是一张风景照片,照片中有山和水," + "山上有很多树木,水面上有船只," * 15,
    "哈" * 80,
    "的" * 120,
    "\n".join(f"{n}、图中的人物正在看着镜头微笑。" for n in range(1, 30)),
    "画像には赤いバスが写っています。" * 15,
    "メニュー\n" * 50,
    "이미지에는 빨간 버스가 건물 앞에 있습니다. " * 15,
    "Das Bild zeigt einen roten Bus vor einem Gebäude. " * 10,
    "L'image montre un bus rouge devant un bâtiment, et " * 12,
    "На изображении показан красный автобус перед зданием. " * 11,
    "La imagen muestra un autobús rojo y la imagen muestra un edificio. " * 9,
    "تظهر الصورة حافلة حمراء أمام مبنى كبير. " * 12,
    "จำนวนคนในภาพ" * 30,
    "Die Person trägt eine Jacke. " + " ".join(f"Die Person {n} trägt ebenfalls eine schwarze Jacke." for n in range(2, 30)),
    "lololololo" * 30,
    "1, 1, 1, 1, " * 60,
    ("The first panel shows a boy walking his dog in the park.\nThe second panel shows the boy throwing a ball.\n"
     "The third panel shows the dog running after it.\n") * 5,
]  # fmt: skip

REFUSALS = [
    "I'm sorry, but I can't assist with that request.",
    "I’m sorry, I cannot identify people in images.",
    "Sorry, but I am unable to provide a description of this image.",
    "As an AI language model, I don't have the ability to see images.",
    "I apologize, but I am unable to view the image. Please provide a text description.",
    "I cannot see the image you are referring to. Could you please upload the image again?",
    "The image you provided shows a dog sitting on a sofa.",
    "The provided image depicts a street scene with several cars.",
    "Sure! Here is a detailed description of the image: a cat sleeps on a chair.",
    "A cat sleeps on a chair. I hope this helps! Let me know if you have any further questions.",
    "很抱歉,我无法查看图片内容,因此不能回答您的问题。",
    "作为一个人工智能语言模型,我没有视觉能力。",
    "您提供的图片中有一只猫坐在沙发上。",
    "申し訳ありませんが、その画像についてはお答えできません。",
    "AIとして、画像を直接見ることはできません。",
    "죄송하지만 이미지를 볼 수 없습니다.",
    "Lo siento, pero no puedo ayudar con esa solicitud.",
    "Como modelo de lenguaje, no tengo la capacidad de ver imágenes.",
    "Je suis désolé, mais je ne peux pas identifier cette personne.",
    "En tant qu'IA, je n'ai pas accès aux images.",
    "Es tut mir leid, aber ich kann dieses Bild nicht beschreiben.",
    "Als KI-Sprachmodell kann ich keine Bilder sehen.",
    "Извините, но я не могу помочь с этим запросом.",
    "Как языковая модель, я не имею доступа к изображениям.",
    "عذراً، لا أستطيع المساعدة في هذا الطلب.",
    "بصفتي نموذجاً لغوياً، لا يمكنني رؤية الصور.",
    "Sinto muito, mas não posso ajudar com esse pedido.",
    "Como um modelo de linguagem, não consigo ver imagens.",
]

ECHOES = [
    ("How many people are there in the picture?", "How many people are there in the picture?"),
    ("How many people are there in the picture?", "How many people are there in the picture? How many people"),
    ("What color is the car?", "Question: What color is the car?\nAnswer:"),
    ("图片中有多少个人?", "图片中有多少个人?"),
    ("この画像には何が写っていますか?", "この画像には何が写っていますか?\nこの画像には"),
    ("Quelle est la couleur de la voiture ?", "Quelle est la couleur de la voiture ? La voiture"),
    ("Сколько человек на фотографии?", "«Сколько человек на фотографии?»"),
    ("Welche Farbe hat das Auto?", "welche farbe hat das auto?"),
    ("Describe the image in detail.", "Describe the image in detail. The image is described in detail."),
]

WRONG_LANGUAGES = [
    ("图片里的人在做什么?", "The man in the picture is riding a bicycle along the river."),
    ("图片里的人在做什么?", "A man riding a bike."),
    ("What is the man doing?", "这个男人正在河边骑自行车。"),
    ("What is the man doing?", "男の人は川沿いで自転車に乗っています。"),
    ("What is the man doing?", "Мужчина едет на велосипеде вдоль реки."),
    ("What is the man doing?", "El hombre está montando en bicicleta junto al río."),
    ("Que fait l'homme sur la photo ?", "The man is riding a bicycle next to the river."),
    ("Was macht der Mann auf dem Bild?", "The man is riding a bicycle next to the river."),
    ("この人は何をしていますか?", "The person is riding a bicycle next to the river."),
    ("ماذا يفعل الرجل في الصورة؟", "The man is riding a bicycle next to the river."),
    ("이 사람은 무엇을 하고 있습니까?", "这个人正在河边骑自行车,后面有一座桥。"),
    ("Please describe what happens in this picture.",
     "A woman is cooking soup in a large kitchen. 她穿着白色的围裙,旁边的桌子上放着许多新鲜的蔬菜和水果。"),
    ("请描述这张图片。", "图片中有一位女士正在厨房做汤。She is wearing a white apron, and there are many vegetables on the table next to her."),
    ("Describe the photo in one paragraph.",
     "A woman is cooking soup in a large kitchen. Sie trägt eine weiße Schürze, und neben ihr liegen viele frische Gemüse auf dem Tisch."),
]  # fmt: skip

MARKS = [
    "<|User|>: What is this?",
    "The dog is here <|det|>[[12, 40,",
    "A cat.<｜end▁of▁sentence｜><｜end▁of▁sentence｜>",
    "A red car|det|> and a bus",
    "The sign says caf\ufffd\ufffd and nothing else.",
    "CafÃ© de la Paix, ouvert le dimanche aprÃ¨s-midi",
    "It’s a dog that doesnâ€™t like the rain.",
    "Ð¡Ð¾Ð±Ð°ÐºÐ° Ð±ÐµÐ¶Ð¸Ñ‚",
    "ÐŸÑ€Ð¸Ð²ÐµÑ‚",
    "å›¾ç‰‡ä¸\xadæœ‰ä¸€åª\u2019ç‹—",
    "[INST] Describe the picture [/INST] A dog.",
    "### Human: What is this?\n### Assistant: A dog.",
    "A dog</s></s></s>",
    "ĠA Ġdog Ġruns Ġon Ġthe Ġbeach",
]

BOXES = [
    "[[0, 50, 55, 9999]",
    "[[0, 50, 55, 9999]]",
    "<|ref|>dog<|/ref|><|det|>[[10, 20, 30, 40], [50, 60",
    "<|det|>[[",
    "<|ref|>dog<|/ref|><|det|>[[500, 20, 30, 40]]<|/det|>",
    "<|ref|>dog<|/ref|><|det|>[[1, 2, 3]]<|/det|>",
    "<|ref|>dog<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>",
    "<|ref|>dog<|/ref|><|det|>[[10, 10, 200, 200], [11, 10, 200, 201]]<|/det|>",
]

EMPTY = ["", " \n\t", '""', "...", "“”", "- -", "<|end|>", "。", "```\n```", "\u200b\u200b"]

WITHOUT_FORM = [
    ("final_answer_absent", "The table has two rows. The first says 5 and the second says 7, so together they are 12."),
    (
        "final_answer_absent",
        "Step 1: the bar for 2019 ends at 40.\nStep 2: the bar for 2020 ends at 60.\nFinal answer:",
    ),
    ("score_absent", "good"),
]

CODE = [
    ("python", "import matplotlib.pyplot as plt\nplt.bar(['a', 'b'], [1, 2"),
    ("python", "for x in range(3)\n    print(x)"),
    ("html", "<html><body><div><p>Hello</p>"),
    ("html", "<div><span>Hello</div></span>"),
    ("html", '<div class="a"><img src="x'),
    ("json", '{"a": 1, "b": [1, 2}'),
]

UNREAD = [
    ('A sign reads "GRAND OPENING" above the door.', "HOTEL CENTRAL\nOpen 24 hours"),
    ("A poster says “Vote for Smith” in red.", "Fresh fish every day"),
    ("看板には「営業中」と書いてあります。", "準備中"),
    ("Das Schild sagt „Betreten verboten“.", "Ausfahrt freihalten"),
]

DEGENERATE = [
    *(Degenerate("repetition", text) for text in LOOPS),
    *(Degenerate("refusal", text) for text in REFUSALS),
    *(Degenerate("echo", answer, _asked(question)) for question, answer in ECHOES),
    *(Degenerate("language", answer, _asked(question)) for question, answer in WRONG_LANGUAGES),
    *(Degenerate("marks", text) for text in MARKS),
    *(Degenerate("boxes", text) for text in BOXES),
    *(Degenerate("empty", text) for text in EMPTY),
    *(Degenerate("code", text, {"code_language": language}) for language, text in CODE),
    *(Degenerate("form", text, {"parse_flags": (flag,)}) for flag, text in WITHOUT_FORM),
    *(Degenerate("ocr_agreement", text, {"ocr_text": read}) for text, read in UNREAD),
    Degenerate("truncated", "A man on a", {"finish_reason": "length"}),
    Degenerate("truncated", "no no no no", {"finish_reason": "loop"}),
    Degenerate("low_logprob", "A purple seventeen of", {"mean_logprob": -3.1}),
    Degenerate("low_logprob", "A purple seventeen of", {"mean_logprob": float("nan")}),
]
