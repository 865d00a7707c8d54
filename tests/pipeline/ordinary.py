# ruff: noqa: E501 - one text a line
"""Answers that are well, of the kinds a dataset is made of, with the question of each group: gates must let them pass.

What is here is near to what gates look for: refrains, leaders, tables of equal cells, answers of one word, quotations in
other languages, transcribed apologies.
"""

CAPTIONS = [
    "A brown dog runs along a sandy beach with a stick in its mouth.",
    "A red double-decker bus drives past a row of Georgian houses in the rain.",
    "The image shows a kitchen with white cabinets, a steel fridge and a wooden island with three stools.",
    "Three people sit around a table. The man on the left is holding a cup, the woman in the middle is reading a menu, and the man on the right is looking at his phone.",
    "An aerial view of a harbour with dozens of white sailing boats moored in neat rows.",
    "Black and white photograph of a child blowing out the candles on a birthday cake.",
    "A bowl of fruit: apples, apples of another sort, pears, grapes and one banana.",
    "The sign above the entrance reads \"Grand Hotel\", and a smaller one says \"No vacancies\".",
    "A man in a suit and a man in a tracksuit shake hands in front of a flag.",
    "Screenshot of a web page with a navigation bar at the top, a search field in the middle and three cards below it.",
    "A plate of spaghetti with tomato sauce. Basil leaves lie on top. A fork rests on the left, a glass of red wine stands on the right.",
    "The painting depicts a stormy sea. Waves crash against the rocks, and a small boat struggles to reach the shore. In the far distance, a lighthouse sends its beam through the dark clouds.",
    "A white cat, a black cat and a grey cat sit on a wall.",
    "It is a bar chart of the number of visitors by year. The bar of 2019 is the tallest with 54,000, and the bar of 2020 is the shortest with 9,000.",
    "There are two clocks on the wall. The left clock shows ten past ten. The right clock shows half past six.",
    "The person in the picture cannot be recognised because the face is blurred.",
    "No people can be seen in the picture; the street is empty.",
    "A T-shirt with the words \"I'm sorry, I can't, I have plans with my dog\" printed on it.",
    "Die Speisekarte of a Bavarian restaurant lies open on the table, next to a pretzel.",
    "A Post-it note with \"Bonjour tout le monde, à demain!\" sticks to the monitor.",
    "The poster is in Japanese: 「夏祭り」 is written in big red letters.",
    "The left panel shows the brain scan of a healthy patient; the right panel shows the brain scan of a patient with a stroke.",
    "A close-up of a keyboard. The keys Q, W, E, R, T and Y are lit in green.",
    "Yes, the traffic light is green.", "Blue", "Two", "3", "12:45", "Left", "A dog", "No.", "Tennis", "$4.50", "Yes", "B", "+", "€ 3,20",
    "Lufthansa", "Mercedes-Benz GLC 300", "Harry Potter and the Philosopher's Stone", "Rue de la Paix", "San Francisco, California",
    "I see a cat that is sleeping on the sofa.",
    "The answer is 42, because 6 times 7 is 42.",
    "First, count the apples in the upper row: 4. Then count the apples in the lower row: 3. In all there are 4 + 3 = 7 apples.",
    "The man cannot reach the shelf, so he uses a ladder.",
    "- a laptop\n- a mug of coffee\n- a notebook\n- a pair of glasses\n- a phone",
    "1. Wash the vegetables.\n2. Cut them into small pieces.\n3. Heat the oil in a pan.\n4. Fry the vegetables for five minutes.\n5. Add salt and pepper.",
    "**Foreground:** a wooden table.\n**Middle ground:** two children playing chess.\n**Background:** a bookshelf.",
]  # fmt: skip

TRANSCRIPTIONS = [
    "WALMART\nSave money. Live better.\nMILK 2% GAL 3.48\nEGGS 12CT 2.19\nBREAD WHT 1.98\nBANANAS 1.12\nSUBTOTAL 8.77\nTAX 0.00\nTOTAL 8.77\nCASH 10.00\nCHANGE 1.23",
    "Café Müller\n1x Espresso 2,40\n1x Espresso 2,40\n1x Espresso 2,40\n2x Croissant 5,00\nSumme 12,20 €\ninkl. 19% MwSt.\nVielen Dank!",
    "レシート\nおにぎり 鮭 ¥150\nおにぎり 梅 ¥140\n緑茶 ¥130\n合計 ¥420\nお預り ¥500\nお釣り ¥80",
    "收银条\n苹果 2.5kg 12.50\n香蕉 1.0kg 6.80\n牛奶 2盒 11.00\n合计 30.30\n微信支付 30.30\n谢谢惠顾",
    "Contents\nIntroduction ........................................ 1\nChapter 1 The River ................................. 9\nChapter 2 The Bridge ................................ 31\nChapter 3 The Town .................................. 58\nChapter 4 The War ................................... 80\nAppendix ............................................ 112",
    "目录\n第一章 绪论……………………………………1\n第二章 方法……………………………………15\n第三章 结果……………………………………32\n第四章 讨论……………………………………48\n参考文献……………………………………60",
    "Chapter 1 . . . . . . . . . . . . . . . . . . . 5\nChapter 2 . . . . . . . . . . . . . . . . . . . 19\nChapter 3 . . . . . . . . . . . . . . . . . . . 40\nChapter 4 . . . . . . . . . . . . . . . . . . . 77",
    "SPEED LIMIT 55", "STOP", "Exit 24 B\nAirport\n2 miles", "PULL", "WET PAINT", "OPEN 24 HOURS", "出口", "禁止吸烟", "Notausgang", "Défense de fumer", "ВХОД", "مخرج",
    "FRAGILE FRAGILE FRAGILE FRAGILE", "SALE SALE SALE\nUp to 70% off", "Caution! Caution! Wet floor",
    "I'm sorry, but your call cannot be completed as dialed. Please hang up and try again.\n— telephone message, 1985",
    "Dear Sir or Madam,\n\nThank you for your letter of 3 March. I regret to inform you that we cannot offer you a refund.\n\nYours faithfully,\nJ. Brown",
    "Form 12-B\n\nName ______________________________\nAddress ___________________________\n___________________________________\n___________________________________\nDate _____________",
    "| x | x | x | x | x | x | x | x |\n| --- | --- | --- | --- | --- | --- | --- | --- |",
    "================================\nREPORT\n================================\nAll systems normal\n--------------------------------\nEnd",
    "TO BE, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\nThe slings and arrows of outrageous fortune,\nOr to take arms against a sea of troubles",
    "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame thy fearful symmetry?\n\nTyger Tyger burning bright,\nIn the forests of the night:\nWhat immortal hand or eye,\nDare frame thy fearful symmetry?",
    "Half a league, half a league,\nHalf a league onward,\nAll in the valley of Death\nRode the six hundred.\n\nCannon to right of them,\nCannon to left of them,\nCannon in front of them\nVolleyed and thundered;",
    "The bells, bells, bells, bells,\nBells, bells, bells—\nTo the rhyming and the chiming of the bells!",
    "Frère Jacques, Frère Jacques,\nDormez-vous? Dormez-vous?\nSonnez les matines! Sonnez les matines!\nDing, dang, dong. Ding, dang, dong.",
    "Alle meine Entchen\nschwimmen auf dem See,\nschwimmen auf dem See,\nKöpfchen in das Wasser,\nSchwänzchen in die Höh.",
    "La la la la la la\nLa la la la la la\nSing along with me\nLa la la la la la",
    "Na na na na na na na na, hey hey hey, goodbye",
    "O come, let us adore him,\nO come, let us adore him,\nO come, let us adore him,\nChrist the Lord.",
    "Jingle bells, jingle bells,\nJingle all the way.\nOh what fun it is to ride\nIn a one-horse open sleigh, hey!\nJingle bells, jingle bells,\nJingle all the way.",
    "Swing low, sweet chariot,\nComing for to carry me home.\nSwing low, sweet chariot,\nComing for to carry me home.\n\nI looked over Jordan, and what did I see,\nComing for to carry me home?\nA band of angels coming after me,\nComing for to carry me home.",
    "Ha ha ha ha ha ha ha!", "HAHAHAHAHAHA", "哈哈哈哈哈哈", "Zzzzzzzzzzzzzz", "Aaaaaaaaaargh!!!!!!", "wwwwwww", "ㅋㅋㅋㅋㅋㅋㅋㅋ", "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo",
    "床前明月光,\n疑是地上霜。\n举头望明月,\n低头思故乡。", "古池や\n蛙飛びこむ\n水の音", "Я вас любил: любовь ещё, быть может,\nВ душе моей угасла не совсем;\nНо пусть она вас больше не тревожит;\nЯ не хочу печалить вас ничем.",
    "Mon 08:00 Maths Room 12\nMon 09:00 English Room 4\nMon 10:00 Maths Room 12\nTue 08:00 Maths Room 12\nTue 09:00 Sport Hall\nTue 10:00 English Room 4",
    "12 Main Street 08:15\n12 Main Street 08:35\n12 Main Street 08:55\n12 Main Street 09:15\n14 Harbour 08:20\n14 Harbour 08:50",
    "2024-03-01 10:00:01 INFO Connection established\n2024-03-01 10:00:02 INFO Connection established\n2024-03-01 10:00:04 WARN Connection lost\n2024-03-01 10:00:05 INFO Connection established",
    "0 0 0 0 0 0 0 1\n0 0 0 0 0 0 1 0\n0 0 0 0 0 1 0 0\n0 0 0 0 1 0 0 0\n0 0 0 1 0 0 0 0\n0 0 1 0 0 0 0 0\n0 1 0 0 0 0 0 0\n1 0 0 0 0 0 0 0",
    "5 3 _ | _ 7 _ | _ _ _\n6 _ _ | 1 9 5 | _ _ _\n_ 9 8 | _ _ _ | _ 6 _",
    "DE89 3704 0044 0532 0130 00", "+49 (0)30 1234567", "4006381333931", "0000 0000 0000 0000", "1000000000000000000000", "3.14159265358979323846264338327950288419716939937510",
    "Tel.: 555-0100\nFax: 555-0101\ninfo@example.org\nwww.example.org",
    "Ingredients: wheat flour, sugar, palm oil, cocoa, glucose syrup, raising agents (E500, E503), salt, emulsifier (soya lecithin), flavouring.",
    "قائمة الأسعار\nقهوة ١٠\nشاي ٥\nعصير ١٢\nماء ٢", "ОАО «РЖД»\nБилет № 123456\nМосква — Казань\nВагон 7, место 24", "서울역\n출구 1 2 3\n버스 타는 곳", "ราคา 50 บาท\nเปิดทุกวัน",
    "Señor Pérez:\nLe escribimos para confirmar su cita del martes 5 de mayo a las 10:30.\nAtentamente,\nClínica Santa Ana",
    "IL ÉTAIT UNE FOIS...", "«Война и мир»", "MAÇÃ\nPÃO\nLIMÃO", "Spaß & “Größe”", "Größe: 42° — 5 µm ± 0,3 ×10³", "C:\\Users\\anna\\Documents\\list.txt", "if x > 0 && y < 1 || z == 2",
    "Q: What is a prime number?\nA: A number with exactly two divisors.\nQ: Is 1 a prime number?\nA: No.\nQ: Is 2 a prime number?\nA: Yes.",
    "Article 1\nThe name of the club shall be Riverside Rowing Club.\nArticle 2\nThe purpose of the club shall be to promote rowing.\nArticle 3\nThe members of the club shall be persons over 12 years of age.",
]  # fmt: skip

TABLES = [
    "| Name | Age | City |\n| --- | --- | --- |\n| Anna | 31 | Berlin |\n| Ben | 27 | Paris |\n| Chloé | 45 | Lyon |",
    "| Feature | Free | Pro | Team |\n|---|---|---|---|\n| Export | No | Yes | Yes |\n| Search | Yes | Yes | Yes |\n| Sharing | No | No | Yes |\n| Support | No | Yes | Yes |\n| Backup | Yes | Yes | Yes |",
    "| A | B | C | D | E | F | G | H |\n|---|---|---|---|---|---|---|---|\n| 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |\n| 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |\n| 0 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |\n| 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
    "| | Mon | Tue | Wed | Thu | Fri |\n|---|---|---|---|---|---|\n| 8:00 | | | | | |\n| 9:00 | | | | | |\n| 10:00 | | | | | |\n| 11:00 | | | | | |\n| 12:00 | | | | | |\n| 13:00 | | | | | |\n| 14:00 | | | | | |",
    "<table>\n<tr><th>Year</th><th>Sales</th></tr>\n<tr><td>2020</td><td>12</td></tr>\n<tr><td>2021</td><td>15</td></tr>\n<tr><td>2022</td><td>19</td></tr>\n</table>",
    "<table><tr><td>Yes</td><td>Yes</td><td>Yes</td></tr><tr><td>Yes</td><td>No</td><td>Yes</td></tr><tr><td>Yes</td><td>Yes</td><td>Yes</td></tr></table>",
    "<table>" + "".join(f"<tr><td>Room {n}</td><td>free</td><td></td></tr>" for n in range(1, 15)) + "</table>",
    "Year\tIncome\tCosts\n2019\t100\t80\n2020\t90\t85\n2021\t120\t95\n2022\t120\t95",
    "| 姓名 | 语文 | 数学 |\n|---|---|---|\n| 张三 | 90 | 95 |\n| 李四 | 88 | 92 |\n| 王五 | 90 | 95 |",
    "| Team | P | W | D | L |\n|:--|--:|--:|--:|--:|\n| Arsenal | 10 | 8 | 1 | 1 |\n| Chelsea | 10 | 7 | 2 | 1 |\n| Everton | 10 | 4 | 2 | 4 |",
    "| Player | Score |\n|---|---|\n" + "".join(f"| Player {n} | 10 |\n" for n in range(1, 13)),
    "| Check | OK |\n|---|---|\n" + "".join(f"| {part} | ✓ |\n" for part in ("Brakes", "Lights", "Horn", "Tyres", "Mirrors", "Wipers", "Belts", "Oil")),
    "Item      Qty   Price\n-----------------------\nPen        10    1.00\nPaper       5    4.00\nGlue        2    2.50\n-----------------------\nTotal            8.50",
    "+-----+-----+-----+\n|  X  |  O  |  X  |\n+-----+-----+-----+\n|  O  |  X  |  O  |\n+-----+-----+-----+\n|  X  |  O  |  X  |\n+-----+-----+-----+",
]  # fmt: skip

FORMULAS = [
    "E = mc^2", "\\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}", "\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}", "\\int_0^\\infty e^{-x^2} dx = \\frac{\\sqrt{\\pi}}{2}",
    "\\begin{bmatrix} 1 & 0 & 0 & 0 \\\\ 0 & 1 & 0 & 0 \\\\ 0 & 0 & 1 & 0 \\\\ 0 & 0 & 0 & 1 \\end{bmatrix}",
    "\\frac{\\partial u}{\\partial t} = \\alpha \\left( \\frac{\\partial^2 u}{\\partial x^2} + \\frac{\\partial^2 u}{\\partial y^2} + \\frac{\\partial^2 u}{\\partial z^2} \\right)",
    "$$a_1 + a_2 + a_3 + \\cdots + a_n$$", "H_2O + CO_2 \\rightarrow H_2CO_3", "f(x) = \\begin{cases} 1 & x > 0 \\\\ 0 & x = 0 \\\\ -1 & x < 0 \\end{cases}", "2 + 2 = 4",
    "1 + 1/2 + 1/4 + 1/8 + 1/16 + 1/32 + 1/64 + ...", "\\cfrac{1}{1+\\cfrac{1}{1+\\cfrac{1}{1+\\cfrac{1}{1+x}}}}",
]  # fmt: skip

CODE = [
    ("python", "import matplotlib.pyplot as plt\n\nyears = [2019, 2020, 2021, 2022]\nsales = [12, 9, 15, 18]\nplt.bar(years, sales, color='steelblue')\nplt.title('Sales by year')\nplt.xlabel('Year')\nplt.ylabel('Sales')\nplt.show()"),
    ("python", "x = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]\nprint(sum(x))"),
    ("python", "fig, ax = plt.subplots(2, 2)\nax[0, 0].plot(x, a)\nax[0, 1].plot(x, b)\nax[1, 0].plot(x, c)\nax[1, 1].plot(x, d)\nax[0, 0].set_title('a')\nax[0, 1].set_title('b')\nax[1, 0].set_title('c')\nax[1, 1].set_title('d')"),
    ("html", "<!DOCTYPE html>\n<html>\n<head><title>Shop</title><meta charset=\"utf-8\"></head>\n<body>\n<h1>Shop</h1>\n<ul>\n<li><a href=\"#\">Home</a></li>\n<li><a href=\"#\">Products</a></li>\n<li><a href=\"#\">About</a></li>\n</ul>\n<img src=\"a.png\">\n</body>\n</html>"),
    ("html", "<ul><li>One<li>Two<li>Three</ul><p>First<p>Second<br>Third"),
    ("html", "<div class=\"grid\">" + "".join(f"<div class=\"card\"><h2>Card {n}</h2><p>Text of the card</p></div>" for n in range(1, 10)) + "</div>"),
    ("html", "<svg><path d=\"M0 0\"/><circle r=\"3\"/></svg><script>if (a < b) { c(); }</script>"),
    ("json", "{\"type\": \"bar\", \"data\": [{\"x\": 1, \"y\": 2}, {\"x\": 2, \"y\": 3}, {\"x\": 3, \"y\": 5}, {\"x\": 4, \"y\": 8}]}"),
    (None, "SELECT name, age FROM users WHERE age > 18 ORDER BY name;"),
    (None, "for (int i = 0; i < n; i++) {\n    for (int j = 0; j < n; j++) {\n        a[i][j] = 0;\n    }\n}"),
    (None, "<?xml version=\"1.0\"?>\n<items>\n  <item id=\"1\"/>\n  <item id=\"2\"/>\n  <item id=\"3\"/>\n</items>"),
    (None, "data |> filter(x > 1) |> summarise(n = n())"),
]  # fmt: skip

ASKED = [
    ("图片中的人在做什么?", ["一个年轻人正在厨房里切菜,旁边放着一锅汤。", "跑步", "他在用 MacBook Pro 写代码。", "墙上写着\"Keep Calm and Carry On\"。", "是的", "五", "图中人物正在参加纽约马拉松(New York City Marathon)。", "兩位老人正在公園裡下棋,旁邊圍著許多觀眾。"]),
    ("この写真を説明してください。", ["雪をかぶった富士山が湖に映っています。手前には小さなボートが浮かんでいます。", "白い猫", "はい", "駅のホームに「東京」と書かれた看板があり、多くの乗客が電車を待っています。", "新幹線", "STARBUCKSのカップを持った女性が歩いています。"]),
    ("이 사진을 설명해 주세요.", ["할머니가 시장에서 사과를 팔고 있습니다.", "네", "파란색 자동차", "카페 앞에 \"OPEN\"이라는 간판이 걸려 있습니다."]),
    ("ماذا يوجد في الصورة؟", ["طفلان يلعبان كرة القدم في ساحة المدرسة.", "نعم", "سيارة زرقاء", "لافتة كتب عليها \"Welcome\" أمام الفندق."]),
    ("Что на фотографии?", ["Мальчик кормит уток у пруда.", "Да", "Красный автомобиль", "На футболке написано \"Just do it\".", "Кафе Starbucks на углу улицы", "Старый деревянный дом, окружённый соснами; над крышей поднимается дым."]),
    ("Was macht der Mann?", ["Er repariert ein Fahrrad.", "Ja.", "Er liest die New York Times.", "Der Mann steht auf einer Leiter und streicht die Wand weiß.", "Kochen", "Drei"]),
    ("Que fait la femme ?", ["Elle arrose les plantes sur le balcon.", "Oui", "Elle lit un livre intitulé « Le Petit Prince ».", "Elle regarde son smartphone.", "Du yoga"]),
    ("¿Qué hace el perro?", ["El perro está durmiendo debajo de la mesa.", "Sí", "Corre", "Juega con una pelota de tenis en el jardín.", "No hay ningún perro en la imagen."]),
    ("¿Es azul el coche?", ["Es azul el coche.", "Sí, es azul.", "No, es rojo."]),
    ("O que a menina está fazendo?", ["A menina está desenhando com lápis de cor.", "Sim", "Lendo um gibi da Mônica", "Ela está sentada no chão da sala."]),
    ("Cosa fa il gatto?", ["Il gatto gioca con un gomitolo di lana.", "Sì", "Dorme"]),
    ("Wat doet de jongen?", ["De jongen voert de eenden in het park.", "Ja", "Voetballen"]),
    ("Co robi dziewczyna?", ["Dziewczyna czyta książkę w parku.", "Tak", "Śpi"]),
    ("Adam ne yapıyor?", ["Adam bahçede çiçekleri suluyor.", "Evet", "Koşuyor"]),
    ("Người đàn ông đang làm gì?", ["Người đàn ông đang câu cá bên bờ sông.", "Có"]),
    ("ผู้ชายกำลังทำอะไร", ["ผู้ชายกำลังซ่อมรถจักรยาน", "ใช่"]),
    ("यह आदमी क्या कर रहा है?", ["यह आदमी खेत में काम कर रहा है।", "हाँ"]),
    ("What does the sign say?", ["営業中", "Вход воспрещён", "Défense d'afficher, loi du 29 juillet 1881", "STOP"]),
    ("Translate the sign into French.", ["Il est interdit de marcher sur la pelouse."]),
    ("请用英文回答:图中有什么?", ["There is a dog sleeping on the sofa."]),
    ("What is the name of the dish?", ["Spaghetti alla carbonara", "Boeuf bourguignon", "宫保鸡丁"]),
    ("Which team plays in red?", ["Bayern München", "FC Barcelona", "The team in red is Olympique Lyonnais."]),
]  # fmt: skip

QUOTING = [
    ('The sign reads "GRAND HOTEL" in gold letters.', "Grand Hotel\nsince 1898"),
    ('A shop with the name "Müller & Söhne".', "MULLER & SOHNE\nBäckerei"),
    ("招牌上写着“老北京炸酱面”。", "老北京\n炸酱面"),
    ('The so-called "golden hour" light falls on the "Cafe Roma" sign.', "CAFE R0MA"),
]  # fmt: skip

DESCRIBE = "What can be seen in the image?"

ORDINARY: list[tuple[str, dict]] = [
    *((text, {"question": DESCRIBE}) for text in CAPTIONS),
    *((text, {}) for text in (*TRANSCRIPTIONS, *TABLES, *FORMULAS)),
    *((text, {"code_language": language}) for language, text in CODE),
    *((text, {"question": question}) for question, texts in ASKED for text in texts),
    *((text, {"ocr_text": read}) for text, read in QUOTING),
]
"""Each with further fields of `Judged`."""
