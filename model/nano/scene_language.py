"""What is true of a scene -> its caption, and phrases with the boxes that fit them.

A caption is canonical, so that it can be parsed back: `A large red circle and a small blue star. A sign says "open".`
Knows nothing of pixels.
"""

import re
from collections.abc import Iterable

from model.nano.scene_records import COLORS, SHAPES, SIZES, Box, Layout, Scene, SceneObject

_NAMED = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")


def describe(objects: tuple[SceneObject, ...], layout: Layout) -> str:
    """Objects from left to right, then the text: whole where it is one line, else its length and its first line."""
    parts = [f"a {one.size} {one.name}" for one in objects]
    sentences = []
    if parts:
        listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
        sentences.append(f"{listed[0].upper()}{listed[1:]}.")
    if layout.lines:
        what = "sign" if layout.sign_box else "page"
        if len(layout.lines) == 1:
            sentences.append(f'A {what} says "{layout.lines[0]}".')
        else:
            sentences.append(f'A {what} with {len(layout.lines)} lines of text begins with "{layout.lines[0]}".')
    return " ".join(sentences)


def parse_caption(text: str) -> list[tuple[str, str]]:
    """The (color, shape) pairs that a caption names, in its order, repeated ones included; what it quotes is no name.

    Never raises: a model's caption may be anything.
    """
    unquoted = re.sub(r'"[^"]*("|$)', " ", text)
    return _NAMED.findall(unquoted.lower())


def referring_phrases(scene: Scene) -> list[tuple[str, list[Box]]]:
    """Every phrase of nano's world that some object of the scene suggests, with all boxes that fit, left to right.

    Phrases come with and without article ("the red circle", "red circle"), with and without size, and as plurals ("red
    shapes", "circles"); "the sign" is asked of every scene. An empty list means that nothing fits: those phrases mix
    attributes that the scene has ("the red square" beside a red circle and a blue square), so a guess does not do.
    """
    objects = scene.objects
    phrases: list[tuple[str, list[Box]]] = []
    colors, shapes = _different(one.color for one in objects), _different(one.shape for one in objects)
    for color in colors:
        for shape in shapes:
            fitting = [one for one in objects if (one.color, one.shape) == (color, shape)]
            phrases += [(f"{the}{color} {shape}", _boxes(fitting)) for the in ("the ", "")]
            for size in SIZES if fitting else ():
                phrases.append((f"the {size} {color} {shape}", _boxes(one for one in fitting if one.size == size)))
    phrases += [(f"{color} shapes", _boxes(one for one in objects if one.color == color)) for color in colors]
    phrases += [(plural(shape), _boxes(one for one in objects if one.shape == shape)) for shape in shapes]
    phrases.append(("the sign", [scene.layout.sign_box] if scene.layout.sign_box else []))
    return phrases


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _different(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _boxes(objects: Iterable[SceneObject]) -> list[Box]:
    return [one.box for one in objects]
