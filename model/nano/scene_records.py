"""The vocabulary of nano's world, and the records that describe one scene: what is where, and what is true of it.

Knows neither how a scene is composed nor how it is drawn.
"""

from dataclasses import dataclass

from PIL import Image

Rgb = tuple[int, int, int]

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels; x2 and y2 are exclusive, so x2 - x1 is the width and x2 may equal the canvas's."""

COLORS: dict[str, Rgb] = {
    "red": (222, 28, 36),
    "orange": (250, 130, 10),
    "yellow": (246, 212, 30),
    "green": (35, 168, 55),
    "cyan": (20, 185, 205),
    "blue": (30, 100, 235),
    "purple": (145, 45, 165),
    "pink": (240, 95, 175),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
SIZES = ("small", "large")

_WORDS = """
apple bread milk rice salt soup cake egg fish meat tea juice house door wall roof room table chair bed lamp key
car bus train boat bike road bridge park city town river lake sea hill island forest garden tree leaf flower
sun moon cloud rain snow wind storm ice fire dog cat bird horse cow sheep mouse bear lion duck
hand foot head eye ear nose mouth arm leg heart book pen paper letter map news story song music radio
school work shop market bank hotel museum office farm kitchen day night week month year hour morning summer winter
open closed exit enter stop go push pull sale free price coffee menu taxi ticket airport station
king queen friend child mother father baby doctor teacher happy cold warm quiet fast slow new old good best
north south east west water stone wood glass quiz zoo jazz fox box village jacket velvet
"""
WORDS = tuple(_WORDS.split())
"""No word is a colour, a shape or a size, so that what is written is never mistaken for what is drawn."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One shape of the plan: a square patch of `extent_px` a side that holds it whole."""

    color: str
    shape: str
    size: str
    rgb: Rgb
    left: int
    top: int
    extent_px: int

    @property
    def patch(self) -> Box:
        return self.left, self.top, self.left + self.extent_px, self.top + self.extent_px


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Lines of one font, size and colour; `positions` are the left ends of their baselines, top to bottom."""

    lines: tuple[str, ...]
    positions: tuple[tuple[int, int], ...]
    font: str
    em_px: int
    print_size: str
    """"small": under 6.5 px high in the global view, legible only in the local tiles; else "large"."""
    ink: Rgb
    plate: Box | None
    """The sign that it stands on; None for a page, whose text stands on the ground itself."""
    plate_rgb: Rgb


@dataclass(frozen=True, kw_only=True)
class Ground:
    """`kind`: plain, gradient, stripes, checks or speckles, between two tones that are both far from every object."""

    kind: str
    tones: tuple[Rgb, Rgb]
    vertical: bool
    cell_px: int
    noise: bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All that is drawn. `placements` run from left to right by their centres, which differ clearly."""

    width: int
    height: int
    ground: Ground
    placements: tuple[Placement, ...]
    text: TextBlock | None

    @property
    def lines(self) -> tuple[str, ...]:
        return self.text.lines if self.text else ()

    @property
    def sign_box(self) -> Box | None:
        return self.text.plate if self.text else None


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One shape as it is seen; `box` holds exactly the pixels that it covers by half or more."""

    color: str
    shape: str
    size: str
    box: Box

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def center(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, kw_only=True)
class Question:
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and all that is true of it. `objects[i]` is `layout.placements[i]` as drawn."""

    seed: int
    image: Image.Image
    layout: Layout
    objects: tuple[SceneObject, ...]
    caption: str
    questions: tuple[Question, ...]

    @property
    def text(self) -> str:
        """The lines in reading order, joined by newlines; "" where nothing is written."""
        return "\n".join(self.layout.lines)
