# ruff: noqa: E501 - one phrase a line
"""An answer -> the words by which it declines, or talks around the matter; None where it does neither.

Phrases of chat models in eleven languages. They count at the beginning of an answer, where a refusal stands, and where
they speak for the model: in a sentence that begins with them, with a clause before them, or with "I". What an image
itself says, quoted or transcribed, may well be sorry. Of an image that does not show something a plain answer says so,
and that is none: "I cannot see a dog".
"""

import re

from pipeline.gates.quotations import without_quotations

_HEAD_CHARS = 240
"""So far into a text phrases are looked for that could stand in the midst of an ordinary one."""

_DO = (
    r"(?:assist|help|provide|identify|view|describe|process|analy[sz]e|fulfil?l?|comply|create|generate|answer|discuss"
    r"|engage|continue|support|interpret|access|open|recogni[sz]e|read|see|determine|do that|do this|make|transcribe)"
)
_CANNOT = r"(?:can(?:no|')?t|can’t|can not|am unable to|'m unable to|’m unable to|am not able to|'m not able to|’m not able to|won't|will not|could not|couldn't)"
_ES_DO = "ayud|asist|proporcion|identific|descri|proces|respond|ver|analiz|cumpl|gener|leer|acce|realiz|hacer|acceso|capacidad"
_FR_DO = "[l’']*(?:aid|fourn|identifi|décri|trait|répond|voir|analys|génér|lire|accé|accès|faire|capacité|mesure)"
_PT_DO = "ajud|forne|identific|descrev|process|respond|ver|analis|cumpr|ger|ler|acess|realiz|fazer|capacidade"

_REFUSALS = (
    # English. After an apology any inability counts; without one only that of a model.
    rf"\b(?:i\s*['’]?\s*a?m|we are|we're) (?:really |very |so |truly )?sorry\b[^.\n]{{0,40}}\b(?:but|,|\.)?[^.\n]{{0,20}}\bi ?{_CANNOT} {_DO}",
    rf"^sorry\b[^\n]{{0,30}}\bi ?{_CANNOT} {_DO}",
    rf"\bi apologi[sz]e\b[^\n]{{0,60}}\b(?:{_CANNOT}|unable)",
    rf"^\W*(?:unfortunately,? )?i ?{_CANNOT} (?:assist|help|provide|identify|view|describe|process|analy[sz]e|fulfil?l?|comply|create|generate|discuss|engage|access|open|interpret|answer|transcribe|translate|caption|extract|summari[sz]e|reproduce|assess|comment on|respond to|look at)\b",
    rf"\bi ?{_CANNOT} be (?:able to {_DO}|(?:assist|help|provid|identify|describ|process|analy[sz]|comply|creat|generat|discuss|interpret|answer|transcrib|translat|caption|extract|summari[sz]|reproduc)ing)\b",
    rf"\bi ?{_CANNOT} (?:\w+ )?(?:see|view|open|access|display|load) (?:the|any|this|that|your|an)? ?(?:images?|pictures?|photos?|files?|attachments?)\b",
    r"\bi (?:do not|don't|don’t|can(?:no|')t|can’t) see (?:any|an|the|your) (?:images?|pictures?|photos?|attachments?|files?)(?: (?:here|yet|attached|uploaded|provided|in (?:your|this|our) (?:message|chat|conversation|request)))?\s*(?:[.,;!?—–-]|$)",
    r"\bno (?:image|picture|photo|file) (?:was|has been|seems to have been|appears to have been) (?:provided|uploaded|attached|shared|included|sent)\b",
    rf"\b(?:this|the|your) (?:content|request|prompt|image|picture|photo)s? [^.\n]{{0,20}}\bviolat(?:es?|ing) (?:our|my) (?:usage polic|[^.\n]{{1,40}}[.,;:]? (?:so |and |therefore )?i ?{_CANNOT}\b)",
    r"\bas an? (?:ai|artificial intelligence|large language model|language model|text-based)\b",
    r"\bi(?: am|'m|’m) (?:just |only )?an? (?:ai|artificial intelligence|language model|text-based)\b",
    r"\bi (?:do not|don't|don’t) have (?:the ability|access|the capability|personal|enough information) (?:to|opinions|feelings|about)",
    r"\bi must decline\b|\bagainst my (?:guidelines|programming|policy)\b|\bi(?:'m| am) not programmed to\b",
    r"\b(?:please|could you|can you) (?:\w+ )?(?:upload|provide|share|attach|send)\b[^.\n]{0,30}\b(?:image|picture|photo)\b",
    # That it is a program, in several languages
    r"\bich bin (?:nur |lediglich )?(?:eine? )?(?:ki\b|ki-|künstliche intelligenz|sprachmodell)|\bje suis (?:juste |seulement )?(?:une? )?(?:ia\b|intelligence artificielle|modèle de langage)",
    r"\b(?:soy|sou|sono) (?:solo |sólo |apenas )?(?:una? |uma? |un')?(?:ia\b|inteligencia artificial|inteligência artificial|modelo de l|modello linguistico|intelligenza artificiale)",
    r"私は(?:AI|人工知能|言語モデル)|(?:저는|나는) (?:AI|인공지능|언어 ?모델)|я(?: —| -)? (?:всего лишь |просто )?(?:ии\b|искусственный интеллект)|أنا (?:مجرد )?(?:نموذج لغ|ذكاء اصطناعي)",
    # Chinese
    r"(?:很抱歉|非常抱歉|对不起|對不起|抱歉)[,，。!！]?[^。\n]{0,12}我?[^。\n]{0,6}(?:无法|無法|不能|没有办法|沒有辦法|没办法)",
    r"^我(?:无法|無法|不能)(?:提供|查看|识别|識別|回答|协助|協助|帮助|幫助|描述|看到|处理|處理|完成|访问)",
    r"作为(?:一个|一款|一名)?(?:人工智能|AI|语言模型|大语言模型|大型语言模型)|作為(?:一個|一款)?(?:人工智慧|人工智能|AI|語言模型)|我(?:是|只是)(?:一个|一款|一個)?(?:人工智能|AI|语言模型|語言模型)",
    # Japanese
    r"(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい|恐れ入りますが)[^。\n]{0,24}(?:できません|出来ません|いたしかねます|できかねます|わかりません|お手伝い)",
    r"(?:AI|人工知能|言語モデル)(?:アシスタント|言語モデル)?(?:として|なので|であるため|ですので)|お答え(?:できません|いたしかねます)|^この(?:画像|リクエスト)(?:については|には)?(?:お答え|対応)",
    # Korean
    r"(?:죄송|미안)(?:합니다|하지만|해요)[^.\n]{0,30}(?:없습니다|없어요|수 없|어렵습니다|못합니다)",
    r"(?:도와 ?드릴|답변(?:을 )?드릴|답변할|제공(?:해 ?드릴|할)|(?:이미지|사진)를 (?:볼|분석할|확인할)) 수 없",
    r"(?:AI|인공지능|언어 ?모델)(?: ?언어 ?모델)?(?:로서|이기 때문에|이므로)",
    # Spanish
    rf"\b(?:lo siento|lo lamento|disculpa|perdón)\b[^.\n]{{0,30}}\bno (?:puedo|me es posible|soy capaz de|tengo)(?: \w+){{0,2}} (?:{_ES_DO})",
    r"^(?:lamentablemente,? )?no puedo (?:ayudar|asistir|proporcionar|identificar|describir|procesar|responder|ver (?:la|las|ninguna|esta)? ?im[aá]gen)",
    r"\bcomo (?:un |una )?(?:modelo de (?:lenguaje|ia)|ia\b|inteligencia artificial|asistente de ia)",
    # French
    rf"\b(?:je suis (?:vraiment )?désolée?|désolée?|je m'excuse|je m’excuse)\b[^.\n]{{0,30}}\bje ne (?:peux|suis|dispose)(?: [\w’']+){{0,6}} (?:{_FR_DO})",
    r"^(?:malheureusement,? )?je ne (?:peux|suis)(?: malheureusement)? pas (?:en mesure|capable|vous aider|aider|fournir|identifier|décrire|traiter|répondre|voir (?:l'|l’|d'|cette )?image)",
    r"\ben tant qu['’](?:ia|intelligence artificielle|assistant|un modèle|modèle)",
    # German
    r"\b(?:es tut mir (?:sehr )?leid|tut mir leid|entschuldigung|ich entschuldige mich)\b[^.\n]{0,30}\b(?:ich|kann|leider)\b[^.\n]{0,60}\b(?:nicht|kein)",
    r"^(?:leider )?(?:kann ich|ich kann|ich bin)\b[^.\n]{0,50}\b(?:nicht|kein\w*)\b[^.\n]{0,50}\b(?:helfen|beantworten|beschreiben|identifizieren|in der lage|verarbeiten|bereitstellen)",
    r"\bals (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|ki-\w+|großes sprachmodell)\b",
    # Russian
    r"(?:извините|простите|к сожалению|прошу прощения|приношу извинения)[^.\n]{0,20}\bя (?:не могу|не в состоянии|не имею|не способ)",
    r"^я не могу (?:помочь|предоставить|определить|описать|ответить|обработать|просматривать|видеть изображени|увидеть изображени)",
    r"как (?:языковая модель|ии\b|искусственный интеллект|большая языковая|ии-модель)|я (?:всего лишь |являюсь )?языков(?:ая|ой) модель",
    # Arabic
    r"(?:عذر[اًا]+|آسف|أعتذر|نعتذر|معذرة|للأسف)[^.\n]{0,25}(?:لا (?:أستطيع|يمكنني|أقدر)|لست قادر|لن أتمكن|غير قادر)",
    r"^لا (?:أستطيع|يمكنني) (?:المساعدة|مساعدتك|تقديم|تحديد|وصف|عرض|رؤية الصور|الإجابة)",
    r"(?:كنموذج لغ|بصفتي نموذج|باعتباري نموذج|كوني نموذج|بصفتي ذكاء|كذكاء اصطناعي)",
    # Portuguese
    rf"\b(?:sinto muito|lamento|desculpe|me desculpe|desculpa|peço desculpas?)\b[^.\n]{{0,30}}\bnão (?:posso|consigo|sou capaz de|me é possível|tenho)(?: \w+){{0,2}} (?:{_PT_DO})",
    r"^(?:infelizmente,? )?(?:eu )?não (?:posso|consigo) (?:ajudar|fornecer|identificar|descrever|processar|responder|ver (?:a|as|nenhuma|esta)? ?image[mn])",
    r"\bcomo (?:um |uma )?(?:modelo de (?:linguagem|ia)|ia\b|inteligência artificial|assistente de ia)",
    # Hindi
    r"(?:क्षमा (?:करें|कीजिए|करना)|माफ़? ?(?:करें|कीजिए|कीजिएगा)|(?:मुझे )?खेद है|दुर्भाग्य से)[^।\n]{0,60}(?:नहीं (?:\S+ )?(?:सकता|सकती|सकते|पाऊँगा|पाऊंगा|पाऊँगी|पाऊंगी|पा रहा|पा रही)|असमर्थ|सक्षम नहीं)",
    r"(?:एक )?(?:AI|एआई|कृत्रिम बुद्धिमत्ता)(?: भाषा)?(?: मॉडल)? (?:के रूप में|हूँ|हूं|होने के नाते)|मैं (?:केवल )?(?:एक )?भाषा मॉडल",
    # Italian
    r"\b(?:mi dispiace|mi spiace|scusa|spiacente)\b[^.\n]{0,30}\bnon (?:posso|sono in grado|riesco)\b",
    r"\b(?:in quanto|come) (?:un )?(?:modello (?:linguistico|di linguaggio)|ia\b|intelligenza artificiale)",
)
_BOILERPLATE = (
    r"^\W*(?:the|this|your) (?:image|picture|photo|photograph|screenshot)s? (?:that )?you(?:'ve|’ve| have)? (?:provided|uploaded|shared|sent|attached|given|submitted)\b",
    r"^\W*(?:based on|in|from|looking at) (?:the|this|your) (?:image|picture|photo) (?:that )?you(?:'ve|’ve| have)? (?:provided|uploaded|shared|sent)\b",
    r"^\W*(?:the|this) (?:provided|uploaded|attached|given) (?:image|picture|photo)\b|^\W*(?:based on|in|from) the (?:provided|uploaded|attached|given) (?:image|picture|photo)\b",
    r"^\W*(?:sure|certainly|of course|absolutely|great question)\b[!,.:] (?:here|i|let|this|the|that|below)\b",
    r"^\W*here(?:'s|’s| is| are) (?:the|a|an|my|your|some)\b[^.\n]{0,60}\b(?:description|caption|transcription|transcript|summary|answer|text|image|picture|extracted)\b[^.\n]{0,40}:",
    r"\b(?:i hope (?:this|that) helps|let me know if you (?:have|need|would|want)|is there anything else|feel free to ask|if you have any (?:more|other|further) questions|how can i (?:help|assist) you)\b",
    r"^\W*(?:当然可以?|好的)[,，!！。][^。\n]{0,12}(?:以下|下面|这是|我)|^(?:您|你)(?:提供|上传|发送)的(?:图片|图像|照片)|希望(?:这|这些)?(?:对您|对你|能)(?:有所)?(?:帮助|有帮助)|如果(?:您|你)(?:还)?有(?:任何|其他)[^。\n]{0,8}问题",
    r"^\W*(?:もちろん|承知(?:しました|いたしました)|はい、?承知)[^\n]{0,20}|^(?:ご)?提供(?:いただいた|された)画像|お役に立て(?:れば|ば)|^アップロード(?:された|いただいた)画像",
    r"^\W*(?:¡?claro(?: que sí)?|por supuesto)[!,.] |^\W*la imagen (?:que (?:has|me has|ha) (?:proporcionado|subido|enviado)|proporcionada)|espero que esto (?:te |le )?(?:ayude|sea útil)",
    r"^\W*bien sûr\s?[!,.] |^\W*l['’]image (?:que vous avez (?:fournie|envoyée|téléchargée)|fournie)|n['’]hésitez pas à (?:me )?(?:demander|poser)|j['’]espère que cela",
    r"^\W*(?:natürlich|gerne|selbstverständlich)[!,.] (?:hier|ich|das)|^\W*das (?:von ihnen |von dir )?(?:bereitgestellte|hochgeladene|gesendete) bild|ich hoffe,? das hilft|lassen sie (?:es )?mich wissen",
    r"^\W*(?:конечно|разумеется)[!,.] (?:вот|я|это)|^\W*(?:на )?(?:предоставленн|загруженн|присланн)\w+ (?:вами )?(?:изображени|фотографи|картинк)|надеюсь, это поможет|если у вас (?:есть|возникнут|остались) (?:ещё |еще |другие |дополнительные )*вопрос",
    r"^\W*(?:بالتأكيد|بالطبع)[!،,.] ?(?:إليك|هذه|هنا)|^\W*الصورة التي (?:قدمتها|أرسلتها|رفعتها|قمت)|آمل أن يكون هذا|هل هناك أي شيء آخر",
    r"^\W*(?:claro|com certeza)[!,.] (?:aqui|a|essa|esta)|^\W*a imagem (?:que você (?:forneceu|enviou)|fornecida)|espero que isso (?:ajude|tenha)",
    r"^\W*(?:물론(?:입니다|이죠)|네, 알겠습니다)|^제공(?:해 ?주신|된) (?:이미지|사진)|도움이 되(?:었|셨)|추가 질문이 있",
)
_REFUSAL = re.compile("|".join(f"(?:{one})" for one in _REFUSALS), re.IGNORECASE)
_BOILERPLATE_RE = re.compile("|".join(f"(?:{one})" for one in _BOILERPLATE), re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?。！？\n]")
_LABEL = re.compile(r"\A\W*\w+\s*[:：]\s*")
_CLAUSE_END = re.compile(r"(?:[,;،—–]|\b(?:but|and|that))\Z", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\A\W*(?:[\w'’]+\W+){0,3}?(?:i|we|me|ich|je|j|yo|eu|io|mi|я|мне|أنا)\b", re.IGNORECASE)
_OTHER_ORDER = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
"""Chinese, Japanese and Korean, whose topic may stand first: there quotation marks alone tell whose words they are."""
_OPENING = " \t\n\r\"'“”‘’*#>_-"


def find_refusal(text: str) -> str | None:
    head = _head(text)
    spoken = (found for found in _REFUSAL.finditer(head) if _speaks_for_the_model(head[: found.start()]))
    return next((_in_one_line(found[0]) for found in spoken), None)


def find_boilerplate(text: str) -> str | None:
    """Also at the end, where good wishes stand."""
    tail = without_quotations(text.strip()[-_HEAD_CHARS:])
    return _phrase(_BOILERPLATE_RE, _head(text)) or (
        _phrase(_BOILERPLATE_RE, f"\n{tail}") if len(text) > _HEAD_CHARS else None
    )


def _head(text: str) -> str:
    """The beginning without what it quotes, unless the whole answer is one quotation."""
    stripped = text.strip()
    if without_quotations(stripped) == '""':
        stripped = stripped[1:-1]
    return without_quotations(stripped[:_HEAD_CHARS]).lstrip(_OPENING)


def _speaks_for_the_model(before: str) -> bool:
    """Whether the sentence that a phrase stands in, so far as it goes `before` it, is no account of something else."""
    begun = _LABEL.sub("", _SENTENCE_END.split(before)[-1]).strip(_OPENING)
    return not begun or any(sign.search(begun) for sign in (_CLAUSE_END, _FIRST_PERSON, _OTHER_ORDER))


def _phrase(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return _in_one_line(found[0]) if found else None


def _in_one_line(phrase: str) -> str:
    return " ".join(phrase.split())[:80]
