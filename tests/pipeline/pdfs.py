"""PDF documents for tests, written object by object, so that a test can say what is odd about one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

INCH = 72


@dataclass(frozen=True, kw_only=True)
class Page:
    """`content` draws in points, from the lower left; `extra` goes into the page's dictionary."""

    content: bytes = b""
    width_pt: float = INCH
    height_pt: float = INCH
    extra: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Pdf:
    pages: Sequence[Page]
    catalog: bytes = b""
    trailer: bytes = b""
    count: int | None = None
    """Of pages, as the document says."""
    objects: Mapping[int, bytes] = field(default_factory=dict)
    """More of them, by numbers from 1000 on."""

    def encoded(self) -> bytes:
        kids = b" ".join(b"%d 0 R" % (10 + 2 * index) for index in range(len(self.pages)))
        count = len(self.pages) if self.count is None else self.count
        objects = {
            1: b"<</Type/Catalog/Pages 2 0 R%s>>" % self.catalog,
            2: b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count),
        }
        for index, page in enumerate(self.pages):
            box = b"/MediaBox[0 0 %f %f]" % (page.width_pt, page.height_pt)
            refers = b"/Parent 2 0 R/Contents %d 0 R" % (11 + 2 * index)
            objects[10 + 2 * index] = b"<</Type/Page%s%s%s>>" % (refers, box, page.extra)
            objects[11 + 2 * index] = stream(page.content)
        return document({**objects, **self.objects}, self.trailer)


def document(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """A file of these objects; the first is the catalog."""
    file, places = bytearray(b"%PDF-1.7\n"), {}
    for number, body in objects.items():
        places[number] = len(file)
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in places.items():
        file += b"%d 1\n%010d 00000 n \n" % (number, place)
    file += b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, trailer, start)
    return bytes(file)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(data), entries, data)


def filled(red: float, green: float, blue: float, box: Sequence[float] = (0, 0, INCH, INCH)) -> bytes:
    """Content that fills a box (left, bottom, width, height) with a colour of RGB."""
    return b"%f %f %f rg %f %f %f %f re f\n" % (red, green, blue, *box)


def grey_pages(num_pages: int) -> bytes:
    """A document whose page n, from 1, is grey, of level n."""
    return Pdf(pages=[Page(content=filled(*[(n + 1) / 255] * 3)) for n in range(num_pages)]).encoded()


ENCRYPTED = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O(%s)/U(%s)>>/ID[(a)(a)]" % (b"o" * 32, b"u" * 32)
"""For the trailer: nobody's password is the right one."""
