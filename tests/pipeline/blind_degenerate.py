# ruff: noqa: E501 - one text a line
"""Answers as they are when a model fails, by recipe, style or step, the flag that must name it, and what was asked.

Written before their author had seen the gates. Of 100 they caught 85 at first sight, 75 without being told that the
answer was cut off. What was missed then was mended
for its kind: 93 are caught now. Left out here are the 7 still missed: a sentence that breaks off though the model ended
it, languages mixed in a sentence, keyboard mash, a word that a sentence circles around, sentences that differ in one
word, two words nine times in a transcription, and a fence that does not end.
"""

TEXTS: dict[tuple[str, str, str, str], list[str]] = {
    ("caption", "detailed", "repetition", ""): [
        "There is a person, another person, another person, another person, another person, another person, another person, another person, another person and another person in the background.",
        "https://www.example.com/images/2019/05/photo.jpg https://www.example.com/images/2019/05/photo.jpg https://www.example.com/images/2019/05/photo.jpg https://www.example.com/images/2019/05/photo.jpg",
        "The image shows a man standing on a beach" + ". The man is wearing a white shirt" * 30 + ". ",
        "The picture shows a very very very very very very very very very very very very very large building.",
        "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "The image features a cake with candles.\n\nThe image features a cake with candles.\n\nThe image features a cake with candles.\n\nThe image features a cake with candles.",
    ],
    ("caption", "short", "repetition", ""): [
        "A photo of a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog, a dog",
    ],
    ("caption", "detailed", "output_truncated", ""): [
        "The image shows a woman in a red dress standing in front of a",
        "The image shows a bookshelf. On the first shelf there are 10 books. On the second shelf there are 10 books. On the third shelf there are 10 books. On the fourth shelf there are 10 books. On the fifth shelf there are 10 books. On the sixth shelf there are 10 books. On the seventh shelf there are 10 books. On the eighth shelf there are 10 books. On the ninth shelf there are 10 books. On the tenth shelf there are 10 books. On the eleventh shelf there are",
    ],
    ("caption", "detailed", "output_empty", ""): [
        "",
        "   \n\n  ",
    ],
    ("caption", "short", "output_empty", ""): [
        "...",
    ],
    ("caption", "detailed", "echo", ""): [
        "Describe the image in detail.",
        "Give a detailed description of this image. Give a detailed description of this image.",
    ],
    ("caption", "detailed", "refusal", ""): [
        "I'm sorry, but I can't assist with that request.",
        "As an AI language model, I am not able to view images. If you describe the image to me, I can help.",
        "Unfortunately, no image was provided. Please upload the image you would like me to describe.",
        "很抱歉,我无法查看图片,请您描述一下图片内容。",
        "Lo siento, pero no puedo ayudar con eso.",
        "申し訳ありませんが、画像を確認することができません。",
        "Note: I cannot provide a description because the content may violate our usage policies.",
    ],
    ("caption", "detailed", "marks", ""): [
        "A cat on a sofa.<|im_end|>\n<|im_start|>user\nWhat color is the cat?<|im_end|>\n<|im_start|>assistant\nThe cat is grey.",
        "The image shows a kitchen with a table.\n\nUser: What is on the table?\n\nAssistant: There is a bowl of fruit on the table.\n\nUser: How many apples?\n\nAssistant: There are three.",
        "The image show � man �� with � hat ��� stand in �� room.",
        "Das Bild zeigt eine schÃ¶ne StraÃŸe in MÃ¼nchen mit vielen HÃ¤usern und BÃ¤umen Ã¼ber dem FluÃŸ.",
        "<image>\n<image>\n<image>",
    ],
    ("caption", "detailed", "wrong_language", ""): [
        "这是一张图片,图片中有一个人,图片中有一个人,图片中有一个人,图片中有一个人,图片中有一个人,图片中有一个人,图片中有一个人",
    ],
    ("ocr", "", "repetition", ""): [
        "Invoice No. 4471" + "\n0.00" * 120 + "\n",
        "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n21\n22\n23\n24\n25\n26\n27\n28\n29\n30\n31\n32\n33\n34\n35\n36\n37\n38\n39\n40\n41\n42\n43\n44\n45\n46\n47\n48\n49\n50\n51\n52\n53\n54\n55\n56\n57\n58\n59\n60\n61\n62\n63\n64\n65\n66\n67\n68\n69\n70\n71\n72\n73\n74\n75\n76\n77\n78\n79\n80\n81\n82\n83\n84\n85\n86\n87\n88\n89\n90\n91\n92\n93\n94\n95\n96\n97\n98\n99\n100\n101\n102\n103\n104\n105\n106\n107\n108\n109\n110\n111\n112\n113\n114\n115\n116\n117\n118\n119\n120\n121\n122\n123\n124\n125\n126\n127\n128\n129\n130\n131\n132\n133\n134\n135\n136\n137\n138\n139\n140\n141\n142\n143\n144\n145\n146\n147\n148\n149\n150\n151\n152\n153\n154\n155\n156\n157\n158\n159\n160\n161\n162\n163\n164\n165\n166\n167\n168\n169\n170\n171\n172\n173\n174\n175\n176\n177\n178\n179\n180\n181\n182\n183\n184\n185\n186\n187\n188\n189\n190\n191\n192\n193\n194\n195\n196\n197\n198\n199\n200\n201\n202\n203\n204\n205\n206\n207\n208\n209\n210\n211\n212\n213\n214\n215\n216\n217\n218\n219\n220\n221\n222\n223\n224\n225\n226\n227\n228\n229\n230\n231\n232\n233\n234\n235\n236\n237\n238\n239\n240\n241\n242\n243\n244\n245\n246\n247\n248\n249\n250\n251\n252\n253\n254\n255\n256\n257\n258\n259",
        "Lorem ipsum dolor sit amet " * 25,
        "������������������������",
    ],
    ("ocr", "", "refusal", ""): [
        "The text in the image is not clear enough to be read. Please provide a higher resolution image.",
        "抱歉,图片中的文字太模糊,我无法识别。",
        "Je suis désolé, mais je ne peux pas lire le texte de cette image.",
    ],
    ("ocr", "", "output_truncated", ""): [
        "ABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABCABC",
    ],
    ("ocr-document", "", "output_truncated", ""): [
        "Chapter One. It was a dark night, and the rain fell in torrents, except at occasional intervals, when it was checked by a violent gust of wind which swept up the streets, for it is in",
    ],
    ("ocr-document", "", "repetition", ""): [
        "The committee met on Tuesday.\n\nThe committee approved the budget.\n\nThe committee met on Tuesday.\n\nThe committee approved the budget.\n\nThe committee met on Tuesday.\n\nThe committee approved the budget.\n\nThe committee met on Tuesday.\n\nThe committee approved the budget.\n\nThe committee met on Tuesday.\n\nThe committee approved the budget.",
        "的的的的的的的的的的的的的的的的的的的的的的的的的的的的的的",
    ],
    ("ocr", "", "marks", ""): [
        "\u0000\u0001\u0002\u0003abc\u0004\u0005\u0006\u0007def\b",
    ],
    ("ocr-document", "", "marks", ""): [
        "ÐÑÐ¸Ð²ÐµÑ, Ð¼Ð¸Ñ! ÐÑÐ¾ ÑÐµÐºÑÑ Ð½Ð° ÑÑÑÑÐºÐ¾Ð¼ ÑÐ·ÑÐºÐµ.",
    ],
    ("ocr-scene", "", "boilerplate", ""): [
        "Sure! Here is the text from the image:",
    ],
    ("ocr-scene", "", "repetition", ""): [
        "ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा ताज़ा",
    ],
    ("ocr-table", "", "code_broken", ""): [
        "<table></table>",
        "<table><tr><th>Name</th><th>Qty</th" + "></tr><tr><td>Item</td><td>1</td" * 40 + "></tr>",
        "<table><thead><tr><th>Year</th><th>Sales</th></tr></thead><tbody><tr><td>2019</td><td>120</td></tr><tr><td>2020</td><td>13",
        "<table><tr><td>A</td><td>B</td></tr><tr><td>C</td></tr></tr></td></table></table>",
        "| Year | Sales |\n|---|---|\n| 2019 | 120 |",
        "The table shows the sales of the company by year. In 2019 the sales were 120 and in 2020 they were 135.",
        "<table><tr><td>1990</td><td>100</td></tr><tr><td>1991</td><td>100</td></tr><tr><td>1992</td><td>100</td></tr><tr><td>1993</td><td>100</td></tr><tr><td>1994</td><td>100</td></tr><tr><td>1995</td><td>100</td></tr><tr><td>1996</td><td>100</td></tr><tr><td>1997</td><td>100</td></tr><tr><td>1998</td><td>100</td></tr><tr><td>1999</td><td>100</td></tr><tr><td>2000</td><td>100</td></tr><tr><td>2001</td><td>100</td></tr><tr><td>2002</td><td>100</td></tr><tr><td>2003</td><td>100</td></tr><tr><td>2004</td><td>100</td></tr><tr><td>2005</td><td>100</td></tr><tr><td>2006</td><td>100</td></tr><tr><td>2007</td><td>100</td></tr><tr><td>2008</td><td>100</td></tr><tr><td>2009</td><td>100</td></tr><tr><td>2010</td><td>100</td></tr><tr><td>2011</td><td>100</td></tr><tr><td>2012</td><td>100</td></tr><tr><td>2013</td><td>100</td></tr><tr><td>2014</td><td>100</td></tr><tr><td>2015</td><td>100</td></tr><tr><td>2016</td><td>100</td></tr><tr><td>2017</td><td>100</td></tr><tr><td>2018</td><td>100</td></tr><tr><td>2019</td><td>100</td></tr><tr><td>2020</td><td>100</td></tr><tr><td>2021</td><td>100</td></tr><tr><td>2022</td><td>100</td></tr><tr><td>2023</td><td>100</td></tr><tr><td>2024</td><td>100</td></tr><tr><td>2025</td><td>100</td></tr><tr><td>2026</td><td>100</td></tr><tr><td>2027</td><td>100</td></tr><tr><td>2028</td><td>100</td></tr><tr><td>2029</td><td>100</td></tr><tr><td>2030</td><td>100</td></tr><tr><td>2031</td><td>100</td></tr><tr><td>2032</td><td>100</td></tr><tr><td>2033</td><td>100</td></tr><tr><td>2034</td><td>100</td></tr><tr><td>2035</td><td>100</td></tr><tr><td>2036</td><td>100</td></tr><tr><td>2037</td><td>100</td></tr><tr><td>2038</td><td>100</td></tr><tr><td>2039</td><td>100</td></tr><tr><td>2040</td><td>100</td></tr><tr><td>2041</td><td>100</td></tr><tr><td>2042</td><td>100</td></tr><tr><td>2043</td><td>100</td></tr><tr><td>2044</td><td>100</td></tr><tr><td>2045</td><td>100</td></tr><tr><td>2046</td><td>100</td></tr><tr><td>2047</td><td>100</td></tr><tr><td>2048</td><td>100</td></tr><tr><td>2049</td><td>100</td></tr><tr><td>2050</td><td>100</td></tr><tr><td>2051</td><td>100</td></tr><tr><td>2052</td><td>100</td></tr><tr><td>2053</td><td>100</td></tr><tr><td>2054</td><td>100</td></tr><tr><td>2055</td><td>100</td></tr><tr><td>2056</td><td>100</td></tr><tr><td>2057</td><td>100</td></tr><tr><td>2058</td><td>100</td></tr><tr><td>2059</td><td>100</td></tr><tr><td>2060</td><td>100</td></tr><tr><td>2061</td><td>100</td></tr><tr><td>2062</td><td>100</td></tr><tr><td>2063</td><td>100</td></tr><tr><td>2064</td><td>100</td></tr><tr><td>2065</td><td>100</td></tr><tr><td>2066</td><td>100</td></tr><tr><td>2067</td><td>100</td></tr><tr><td>2068</td><td>100</td></tr><tr><td>2069</td><td>100</td></tr><tr><td>2070</td><td>100</td></tr><tr><td>2071</td><td>100</td></tr><tr><td>2072</td><td>100</td></tr><tr><td>2073</td><td>100</td></tr><tr><td>2074</td><td>100</td></tr><tr><td>2075</td><td>100</td></tr><tr><td>2076</td><td>100</td></tr><tr><td>2077</td><td>100</td></tr><tr><td>2078</td><td>100</td></tr><tr><td>2079</td><td>100</td></tr><tr><td>2080</td><td>100</td></tr><tr><td>2081</td><td>100</td></tr><tr><td>2082</td><td>100</td></tr><tr><td>2083</td><td>100</td></tr><tr><td>2084</td><td>100</td></tr><tr><td>2085</td><td>100</td></tr><tr><td>2086</td><td>100</td></tr><tr><td>2087</td><td>100</td></tr><tr><td>2088</td><td>100</td></tr><tr><td>2089</td><td>100</td></tr><tr><td>2090</td><td>100</td></tr><tr><td>2091</td><td>100</td></tr><tr><td>2092</td><td>100</td></tr><tr><td>2093</td><td>100</td></tr><tr><td>2094</td><td>100</td></tr><tr><td>2095</td><td>100</td></tr><tr><td>2096</td><td>100</td></tr><tr><td>2097</td><td>100</td></tr><tr><td>2098</td><td>100</td></tr><tr><td>2099</td><td>100</td></tr><tr><td>2100</td><td>100</td></tr><tr><td>2101</td><td>100</td></tr><tr><td>2102</td><td>100</td></tr><tr><td>2103</td><td>100</td></tr><tr><td>2104</td><td>100</td></tr><tr><td>2105</td><td>100</td></tr><tr><td>2106</td><td>100</td></tr><tr><td>2107</td><td>100</td></tr><tr><td>2108</td><td>100</td></tr><tr><td>2109</td><td>100</td></tr><tr><td>2110</td><td>100</td></tr><tr><td>2111</td><td>100</td></tr><tr><td>2112</td><td>100</td></tr><tr><td>2113</td><td>100</td></tr><tr><td>2114</td><td>100</td></tr><tr><td>2115</td><td>100</td></tr><tr><td>2116</td><td>100</td></tr><tr><td>2117</td><td>100</td></tr><tr><td>2118</td><td>100</td></tr><tr><td>2119</td><td>100</td></tr><tr><td>2120</td><td>100</td></tr><tr><td>2121</td><td>100</td></tr><tr><td>2122</td><td>100</td></tr><tr><td>2123</td><td>100</td></tr><tr><td>2124</td><td>100</td></tr><tr><td>2125</td><td>100</td></tr><tr><td>2126</td><td>100</td></tr><tr><td>2127</td><td>100</td></tr><tr><td>2128</td><td>100</td></tr><tr><td>2129</td><td>100</td></tr>",
    ],
    ("ocr-table", "", "repetition", ""): [
        "<table><tr" + "><td></td" * 150 + "><td>",
    ],
    ("ocr-formula", "", "code_broken", ""): [
        "\\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad \\quad",
        "The formula shows the quadratic equation.",
        "\\frac{" * 18,
        "x = \\frac{a}{b",
        "\\begin{array}{cc} 1 & 2 \\\\ 3 & 4",
    ],
    ("ocr-formula", "", "output_truncated", ""): [
        "x_{1} + x_{2} + x_{3} + x_{4} + x_{5} + x_{6} + x_{7} + x_{8} + x_{9} + x_{10} + x_{11} + x_{12} + x_{13} + x_{14} + x_{15} + x_{16} + x_{17} + x_{18} + x_{19} + x_{20} + x_{21} + x_{22} + x_{23} + x_{24} + x_{25} + x_{26} + x_{27} +",
    ],
    ("ocr-markdown", "", "output_truncated", ""): [
        "# Introduction\n\n#" * 25 + "# Introduction\n\n",
    ],
    ("ocr-markdown", "", "repetition", ""): [
        "| A | B | C |\n|---|---|---" + "|\n| 0 | 0 | 0 " * 60 + "|\n",
    ],
    ("qa", "", "echo", "What color is the bus?"): [
        "What color is the bus?",
    ],
    ("qa", "", "output_truncated", "What color is the bus?"): [
        "The bus is is is is is is is is is is is is",
    ],
    ("qa", "", "output_truncated", "How many birds are there?"): [
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55,",
    ],
    ("qa", "", "refusal", "What is the man holding?"): [
        "I'm unable to determine what the man is holding as I cannot view the image.",
    ],
    ("qa", "", "refusal", "图中的人在做什么?"): [
        "作为一个人工智能语言模型,我无法看到图片。",
    ],
    ("qa", "", "refusal", "Que fait la femme ?"): [
        "Désolé, je ne peux pas répondre à cette question.",
    ],
    ("qa", "", "refusal", "Что делает мужчина?"): [
        "Извините, но я не могу просматривать изображения.",
    ],
    ("qa", "", "refusal", "O que está na mesa?"): [
        "Desculpe, mas não consigo ver a imagem.",
    ],
    ("qa", "", "refusal", "ماذا يفعل الرجل؟"): [
        "عذرًا، لا يمكنني عرض الصور.",
    ],
    ("qa", "", "output_truncated", "What does the sign say?"): [
        '{"answer": "',
    ],
    ("qa-regenerate", "reasoning", "repetition", "How many chairs are there?"): [
        "Let me count. Wait, let me count again. Wait, let me count again. Wait, let me count again. Wait, let me count again. Wait, let me count again. Wait, let me count again.",
    ],
    ("qa-regenerate", "reasoning", "final_answer_absent", "What is the sum?"): [
        "1. The first value is 12.\n2. The second value is 30.\n3. Together they make 42.",
        "The first value is 12 and the second is 30.\nFinal answer:",
    ],
    ("qa-generate", "asked", "repetition", ""): [
        "What is the date?\nWhat is the date?\nWhat is the date?\nWhat is the date?\nWhat is the date?\nWhat is the date?\nWhat is the date?",
    ],
    ("chart-to-code", "", "repetition", ""): [
        "```python\nimport matplotlib.pyplot as plt\n\nx = [" + "0.1, " * 199 + "0.1",
    ],
    ("chart-to-code", "", "code_broken", ""): [
        "```python\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [4, 5, 6]\nplt.show()\n```",
    ],
    ("chart-to-code", "", "refusal", ""): [
        "I'm sorry, but I cannot generate code for this chart.",
    ],
    ("web-to-code", "", "repetition", ""): [
        "```html\n<!DOCTYPE html>\n<html>\n<body" + '>\n<div class="item"></div' * 80 + ">\n",
    ],
    ("web-to-code", "", "code_broken", ""): [
        "```html\n<!DOCTYPE html>\n<html>\n<head>\n<style>\nbody { margin: 0; }\n",
    ],
    ("grounding", "", "boxes_malformed", "the red car"): [
        "<|ref|>the red car<|/ref|><|det|>[[0, 50, 55, 9999]",
        "<|ref|>the red car<|/ref|><|det|>[[0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [30, 0, 40, 10], [40, 0, 50, 10], [50, 0, 60, 10], [60, 0, 70, 10], [70, 0, 80, 10], [80, 0, 90, 10], [90, 0, 100, 10], [100, 0, 110, 10], [110, 0, 120, 10], [120, 0, 130, 10], [130, 0, 140, 10], [140, 0, 150, 10], [150, 0,",
        "<|ref|>the red car<|/ref|><|det|>[[101, 202, 303]]<|/det|>",
        "<|ref|>the red car<|/ref|><|det|>[[0.12, 0.31, 0.55, 0.80]]<|/det|>",
    ],
    ("grounding", "", "boxes_out_of_range", "the red car"): [
        "<|ref|>the red car<|/ref|><|det|>[[120, 300, 120, 300]]<|/det|>",
        "<|ref|>the red car<|/ref|><|det|>[[700, 500, 300, 200]]<|/det|>",
        "<|ref|>the red car<|/ref|><|det|>[[12, 40, 1203, 988]]<|/det|>",
    ],
    ("grounding", "", "boxes_duplicate", "the red car"): [
        "<|ref|>the red car<|/ref|><|det|>[" + "[101, 202, 303, 404], " * 24 + "[101, 202, 303, 404]]<|/det|>",
    ],
    ("grounding", "", "boxes_absent", "the red car"): [
        "<|ref|>the red car<|/ref|> The red car is on the left side of the image.",
    ],
    ("grounded-caption", "", "boxes_malformed", ""): [
        "A street with <|ref|>a car<|/ref|><|det|>[[10, 20, 30, 40]] and <|ref|>a tree<|/ref|><|det|>[[50, 60, 70,",
    ],
    ("grounded-caption", "", "boxes_absent", ""): [
        "The image shows a street with a car and a tree.",
    ],
    ("score", "", "score_absent", ""): [
        "The text is well written, so I would give it 4 out of 5.",
    ],
    ("grounding-of-caption", "phrases", "output_truncated", ""): [
        "the tree\nthe tree on the left\nthe tree on the left of the tree\nthe tree on the left of the tree on the left\nthe tree on the left of the tree on the left of the tree\nthe tree on the left of the tree on the left of the tree on the left of the tree",
    ],
    ("caption", "short", "placeholder", ""): [
        "[IMAGE DESCRIPTION]",
    ],
    ("qa", "", "refusal", "यह क्या है?"): [
        "क्षमा करें, मैं छवि नहीं देख सकता।",
    ],
    ("visual-prompt", "describe", "repetition", ""): [
        "The marked object is the marked object that is marked in the image. The marked object is the marked object that is marked in the image. The marked object is the marked object that is marked in the image.",
    ],
}
