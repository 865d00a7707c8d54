# ruff: noqa: E501 - one text a line
"""Answers as models give them when they fail, written by somebody who had not seen the detectors, nor the other answers.

Of 120 the gates of `caption`, `ocr` and `qa` caught 93 at first sight. What was missed was mended for its kind. Left out
are 12 that no gate is meant for: keyboard mash and base64, a mix of scripts, an answer of one idle word, broken JSON in
prose, filler text, a placeholder that could stand in the image, and white space where an image may have no text.
"""

from tests.pipeline.degenerate import Degenerate

_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
    "twentieth",
)


def _own(gate: str, text: str, question: str = "", **told: str) -> Degenerate:
    return Degenerate(gate, text, {"question": question, **told}, own_words=True)


DEGENERATE = [
    _own("repetition", "A man in a blue jacket stands beside a " + "red " * 180 + "car"),
    Degenerate("repetition", "INVOICE\nDate: 12/03/2019\nTo: Harlow & Sons\nItem " + "the " * 300),
    _own("repetition", "The answer is " + "yes " * 90, "Is the light on?"),
    _own("repetition", "A dog dog dog dog dog dog dog dog dog dog dog dog on the grass."),
    _own("repetition", "blue blue blue blue blue blue blue blue", "What colour is the umbrella?"),
    _own(
        "repetition",
        "The photograph shows a narrow street in an old town, with laundry hanging between the houses and a scooter parked beside a green door. The light falls from the left and the cobbles are wet. In the background there are several people walking, and several people sitting, and several people "
        + "walking and several people " * 70,
    ),
    _own("repetition", "A kitchen with a stove, a kettle, " + "a wooden cutting board, a set of knives, " * 60),
    _own("repetition", "The image shows a beach. " + "The sky is blue and the water is calm. " * 40),
    _own(
        "repetition",
        "A cat is lying on a sofa. The cat is lying on a sofa. The cat is lying on a sofa. The cat is lying on a sofa. The cat is lying on a sofa. The cat is lying on a sofa.",
    ),
    _own(
        "repetition",
        "The total is 45.20, which is the sum of the items, " + "which is the sum of the items, " * 50,
        "What is the total on the receipt?",
    ),
    Degenerate(
        "repetition",
        "Chapter 3\n\nThe settlers arrived in the spring of 1842 and found the valley "
        + "and the river and the valley " * 80,
    ),
    _own(
        "repetition",
        "Une femme marche dans la rue avec un parapluie. " + "Elle porte un manteau noir et un chapeau. " * 35,
    ),
    _own("repetition", "图片中有一只小狗在草地上奔跑，" + "背景是蓝天白云，草地是绿色的，" * 50),
    Degenerate("repetition", "お知らせ\n本日の営業時間は" + "午前十時から午後" * 70),
    _own("repetition", "تظهر الصورة رجلا يقف بجانب سيارة " + "حمراء كبيرة بجانب سيارة " * 60),
    _own(
        "repetition",
        "Das Diagramm zeigt die Umsätze " + "der letzten Jahre und die Umsätze " * 45,
        "Was zeigt das Diagramm?",
    ),
    Degenerate("repetition", "MENU\nSoup 4.50\n" + "Bread 1.20\n" * 120),
    _own("repetition", "- A wooden table\n" + "- A chair\n" * 100),
    Degenerate("repetition", "STATION LIST\n" + "Northgate\nSouthgate\n" * 75),
    _own(
        "repetition",
        "The image contains the following elements:\n"
        + "- The left wall is painted white.\n- The right wall is painted grey.\n" * 50,
    ),
    Degenerate("repetition", "Programme\n" + "10:00 Registration\n10:30 Opening remarks\n11:00 Coffee break\n" * 45),
    _own("repetition", "Q: What is in the picture?\nA: A bus.\n" * 40, "What is in the picture?"),
    _own(
        "repetition",
        (
            "In the foreground a young woman sits at a small round table with a cup of coffee and an open notebook. Behind her the window looks out on a rainy street where a tram is passing.\n\nThe overall mood is quiet and thoughtful, with soft light and muted colours.\n\n"
        )
        * 9,
    ),
    _own(
        "repetition",
        ("The picture shows a mountain lake at dawn, mist rising from the surface and pines along the shore.\n\n") * 5,
    ),
    Degenerate(
        "repetition",
        "| Name | Qty | Price |\n|---|---|---|\n| Bolt M6 | 10 | 2.00 |\n" + "| Nut M6 | 10 | 1.00 |\n" * 110,
    ),
    Degenerate("repetition", "| Date | Time in | Time out | Initials |\n|---|---|---|---|\n" + "| | | | |\n" * 250),
    Degenerate("repetition", "<table><tr><td>Year</td><td>Sales</td></tr>" + "<tr><td></td><td></td></tr>" * 140),
    _own(
        "repetition",
        "The image shows a shelf with books. " + " ".join(f"Book {i} is on the shelf." for i in range(1, 150)),
    ),
    Degenerate("repetition", "\n".join(f"{i}. The applicant shall provide the documents." for i in range(1, 140))),
    _own(
        "repetition", "\n".join(f"{i}. A person wearing a black shirt and standing in the crowd." for i in range(1, 95))
    ),
    _own(
        "repetition",
        "There are the following objects: " + ", ".join(f"object {i}" for i in range(1, 260)),
        "List the objects on the table.",
    ),
    _own("repetition", " ".join(f"The {w} man is wearing a hat and the {w} man is smiling." for w in _ORDINALS)),
    _own(
        "repetition",
        "The values are " + ", ".join(f"{12.5 + 0.1 * i:.1f}" for i in range(220)),
        "What is the value for 2014?",
    ),
    Degenerate(
        "repetition",
        "\n".join(
            f"2019-{1 + (i // 28) % 12:02d}-{1 + i % 28:02d}  Opening balance 1,{200 + i}.00  Closing balance 1,{201 + i}.00"
            for i in range(130)
        ),
    ),
    Degenerate("repetition", "Page " + " ".join(str(i) for i in range(1, 700))),
    _own(
        "repetition",
        "The traffic light is at " + " ".join(f"[[{100 + i}, {200 + i}, {140 + i}, {260 + i}]]" for i in range(100)),
        "Locate the traffic light.",
    ),
    _own(
        "repetition",
        "<|ref|>the person<|/ref|><|det|>[" + ", ".join("[512, 300, 540, 388]" for _ in range(90)),
        "Locate every person.",
    ),
    Degenerate("repetition", "Timeline\n" + "\n".join(f"In {1900 + i} the company was expanded." for i in range(120))),
    Degenerate(
        "repetition",
        "\n".join(
            f"({chr(97 + i % 26)}{'' if i < 26 else i // 26}) the name and address of the holder;" for i in range(110)
        ),
    ),
    _own(
        "repetition",
        "0.3333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333",
        "What is the ratio of the red bar to the blue bar?",
    ),
    _own("repetition", "The population is 1" + "0" * 400, "What is the population shown?"),
    Degenerate("repetition", "TOTAL DUE " + "." * 1500),
    Degenerate("repetition", "Name: " + "_" * 1200),
    _own("repetition", "!" * 300),
    _own("repetition", "H" + "m" * 250, "What does the text say?"),
    Degenerate("repetition", "的" * 500),
    Degenerate("repetition", "きゃ" + "あ" * 300),
    Degenerate("repetition", "Section 2\n" + "- " * 700),
    _own("repetition", "A lovely day at the beach " + "🌊☀️" * 120),
    Degenerate("repetition", "ha" * 400),
    _own("repetition", "The scene is viv" + "ivid" * 180),
    _own("refusal", "I'm sorry, but I can't help with identifying people in images."),
    _own(
        "refusal",
        "As an AI language model, I don't have the ability to see images. Please describe the image and I will do my best to help you.",
    ),
    _own("refusal", "I apologize, but I am unable to process this request.", "What is the man holding?"),
    Degenerate("refusal", "Sorry, I cannot read the text in this image. Could you please upload a clearer version?"),
    Degenerate("refusal", "I'm unable to transcribe this document because it may be protected by copyright."),
    _own(
        "refusal",
        "It looks like no image was attached to your message. Please upload the image you would like me to describe.",
    ),
    _own("refusal", "I don't see any image here. Can you share it again?", "How many chairs are there?"),
    _own(
        "refusal",
        "Unfortunately, as a text-based assistant I cannot view pictures directly, but I would be happy to help you write a caption if you tell me what the photo contains.",
    ),
    _own("refusal", "对不起，我无法查看图片。作为一个人工智能语言模型，我只能处理文字信息。"),
    _own("refusal", "抱歉，我不能回答这个问题。", "图中有几个人？"),
    _own(
        "refusal", "Je suis désolé, mais je ne peux pas voir les images. Pouvez-vous me décrire ce qu'elle contient ?"
    ),
    Degenerate("refusal", "Es tut mir leid, aber ich kann den Text auf diesem Bild nicht lesen."),
    _own("refusal", "Lo siento, como modelo de lenguaje de IA no puedo ver imágenes.", "¿De qué color es el coche?"),
    _own("refusal", "申し訳ありませんが、画像を見ることができません。"),
    _own("refusal", "This content may violate our usage policies, so I won't be describing it."),
    _own(
        "refusal",
        "The image shows a crowd in front of a government building. However, as an AI developed to be helpful and harmless, I am not able to provide further details about the people shown. If you have any other questions, feel free to ask!",
    ),
    _own("refusal", "Sure! I'd be happy to help. Please provide the image you would like me to caption."),
    Degenerate("refusal", "Of course! Here is the text from the image:"),
    _own("refusal", "Hello! How can I assist you today?"),
    _own("empty", ""),
    _own("empty", "", "What does the sign say?"),
    _own("empty", "."),
    Degenerate("empty", "```\n```"),
    _own("empty", "...", "What is the highest bar?"),
    _own("empty", "\u200b\u200b", "How many birds are there?"),
    _own("echo", "What is the title of the chart?", "What is the title of the chart?"),
    _own("echo", "Question: How many people are sitting at the table?", "How many people are sitting at the table?"),
    _own("echo", "Describe this image in detail.", instruction="Describe this image in detail."),
    _own(
        "echo",
        "Please provide a detailed description of the image, including objects, colors, and spatial relationships. Do not mention anything that is not visible.",
        instruction="Please provide a detailed description of the image, including objects, colors, and spatial relationships. Do not mention anything that is not visible.",
    ),
    Degenerate(
        "echo",
        "Transcribe all the text in this image exactly as it appears.",
        {"instruction": "Transcribe all the text in this image exactly as it appears."},
    ),
    _own(
        "marks",
        "<image>\nWhich month had the lowest rainfall? Answer with a single word.\nWhich month had the lowest rainfall? Answer with a single word.",
        "Which month had the lowest rainfall? Answer with a single word.",
    ),
    _own("marks", "A boy is flying a kite in a park.<|im_end|>\n<|im_start|>user\nWhat colour is the kite?<|im_end|>"),
    _own("marks", "<｜begin▁of▁sentence｜><|User|>: <image> <|Assistant|>: A white van parked by a fence."),
    _own("marks", "Three<｜end▁of▁sentence｜><｜end▁of▁sentence｜>", "How many cups are there?"),
    Degenerate("marks", "<s>[INST] OPEN 9-5 [/INST]</s>"),
    _own("marks", "<image><image><image><image> a street at night"),
    Degenerate("marks", "RECEIPT<unk><unk> 12<unk>40 <unk>OTAL <pad><pad><pad><pad>"),
    _own(
        "marks",
        "Yes.\n\nUser: What about the second one?\nAssistant: No.\n\nUser: And the third?\nAssistant: Yes.",
        "Is the first window open?",
    ),
    _own("marks", "A <|ref|>man<|/ref|><|det|>[[12, 40, 300, 900]]<|/det|> riding a <|ref|>horse<|/ref|><|det|>[["),
    _own(
        "truncated",
        "The painting depicts a harbour in the early evening. On the left, three fishing boats are moored at a stone quay, their masts bare. A group of men in dark coats is unloading baskets, and a boy with a dog watches them from the steps. The water reflects the orange of the sky, and in the distance, beyond the mole, a steamship is leaving with a long trail of",
        finish_reason="length",
    ),
    Degenerate(
        "truncated",
        "TERMS AND CONDITIONS\n1. The Customer shall pay all sums due within thirty (30) days of the date of the invoice.\n2. Goods remain the property of the Seller until paid for in full.\n3. The Seller shall not be liable for any indirect or conseq",
        {"finish_reason": "length"},
    ),
    _own(
        "truncated",
        "To find the difference we first read the bar for 2010, which is at 34 percent, and the bar for 2015, which is at 51 percent. The difference is therefore",
        "What is the difference between 2010 and 2015?",
        finish_reason="length",
    ),
    _own(
        "truncated",
        "画面中央是一座古老的石桥，桥下有一条小船缓缓驶过，船上坐着两位老人，其中一位戴着草帽，另一位正在",
        finish_reason="length",
    ),
    Degenerate(
        "truncated",
        "| Country | 2018 | 2019 | 2020 |\n|---|---|---|---|\n| Austria | 8.8 | 8.9 | 8.9 |\n| Belgium | 11.4 | 11.5 | 11.5 |\n| Denm",
        {"finish_reason": "length"},
    ),
    _own("language", "图中共有四只鸭子在水面上游动，其中一只是白色的。", "How many ducks are there in the picture?"),
    _own("marks", "[insert caption here]"),
    _own("marks", "A photo of [object] in [location], with [color] background."),
    _own("marks", "<answer>", "What year is shown?"),
    _own("marks", "TODO: write description"),
    _own(
        "truncated",
        '{"title": "Annual rainfall", "values": [12, 14, 9, 22, ',
        'Return the chart as JSON with keys "title" and "values".',
        finish_reason="length",
    ),
    _own("repetition", '{"items": [' + '{"name": "", "price": ""}, ' * 110, "Extract all line items as JSON."),
    Degenerate(
        "marks",
        "\ufffd\ufffd\ufffd\ufffd Inv\ufffd\ufffdice \ufffd\ufffd\ufffd 2\ufffd1\ufffd \ufffd\ufffd\ufffd\ufffd\ufffd",
    ),
    Degenerate(
        "marks", "Ã©tÃ© Ã  la plage â€” lâ€™hÃ´tel Â« Les GenÃªts Â» vous accueille toute lâ€™annÃ©e, cÃ´tÃ© mer"
    ),
    _own("marks", "A\x00 man\x01 with\x02 a \x1b[31m hat\x07 \x08\x08\x08"),
    Degenerate("repetition", "Total" + " " * 900 + "12.00" + "\n" * 400),
    _own("marks", "Ţ̵̢̛͎̱̳̮͉̖̬̞͍̪̈́́̋̿͒͊h̵̨̛̘̰̖̩̣̹͔̓̏̈́͑͂͛̕ȩ̴̧̛͔͙̲̹͇̈́̿́̋̒͘͝ ̸̡̗̼̮͙̯̺̓͊͛́̕ͅc̴̨̧̛̲̗̬͍̯̎̈́̏͑̚͝a̵̡̨̛̘͙̬̱̎͋͊̿͌͝t̵̨̲̪̣̘̍́̒̓͊̕͜"),
    _own("marks", "The ofing andre withal ##ing ##ed Ġthe Ġman Ġis Ġstanding Ġon Ġthe"),
]
