import io
import subprocess
import sys
import zlib
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from pipeline.pdf_child import scale_that_fits
from pipeline.pdf_protocol import PAGE_SCALED, PdfSettings
from pipeline.pdf_sandbox import PdfSandbox
from schemas.errors import ErrorKind, RowFailure
from tests.command import REPOSITORY
from tests.pipeline.pdfs import ENCRYPTED, Page, Pdf, document, filled, grey_pages, stream

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def settings(**changes):
    return PdfSettings(**{"dpi": 72, "max_pixels": 10**6, "timeout_s": 60, "memory_mb": 1024, **changes})


@pytest.fixture(scope="module")
def sandbox():
    with closing(PdfSandbox(settings())) as sandbox:
        yield sandbox


def picture(rendered):
    """Its pixels [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(rendered.encoded)).convert("RGB"))


def render(sandbox, page, **of_document):
    """The pixels [H, W, 3] of a document of this one page."""
    return picture(sandbox.render(Pdf(pages=[page], **of_document).encoded(), 1))


def failure(ask):
    with pytest.raises(RowFailure) as caught:
        ask()
    return caught.value.error


def end_of(sandbox, encoded, page):
    """ "rendered", or the kind of the failure."""
    try:
        return "rendered" if picture(sandbox.render(encoded, page)).ndim == 3 else "another picture"
    except RowFailure as caught:
        return caught.error.kind


def test_page_is_rendered_at_the_dpi_on_white(sandbox):
    pixels = render(sandbox, Page(content=filled(1, 0, 0, (0, 0, 36, 18)), width_pt=72, height_pt=36))
    assert pixels.shape == (36, 72, 3)
    assert tuple(pixels[35, 0]) == RED
    assert tuple(pixels[0, 0]) == tuple(pixels[35, 71]) == WHITE
    with closing(PdfSandbox(settings(dpi=144))) as finer:
        assert render(finer, Page(width_pt=72.2, height_pt=36)).shape == (72, 145, 3)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, 0)), (180, (0, 71)), (270, (35, 71))])
def test_page_is_turned_as_it_says(sandbox, degrees, corner):
    at_lower_left = filled(1, 0, 0, (0, 0, 9, 9))
    sides = (36, 72) if degrees != 180 else (72, 36)
    page = Page(content=at_lower_left, width_pt=sides[0], height_pt=sides[1], extra=b"/Rotate %d" % degrees)
    pixels = render(sandbox, page)
    assert pixels.shape == (36, 72, 3)
    assert tuple(pixels[corner]) == RED


def test_cmyk_and_half_transparent_colours_are_mixed_on_white(sandbox):
    half = b"/Resources<</ExtGState<</Half<</ca 0.5>>>>>>"
    content = b"0 1 1 0 k 0 0 36 72 re f /Half gs 0 0 1 rg 36 0 36 72 re f"
    pixels = render(sandbox, Page(content=content, extra=half))
    red, blue = pixels[36, 9].astype(int), pixels[36, 60].astype(int)
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert abs(blue - (127, 127, 255)).max() <= 2


def test_annotations_and_filled_in_forms_are_seen(sandbox):
    appearance = stream(filled(0, 0, 1, (0, 0, 18, 18)), b"/Type/XObject/Subtype/Form/BBox[0 0 18 18]")
    stamp = b"<</Type/Annot/Subtype/Stamp/Rect[0 0 18 18]/F 4/AP<</N 1001 0 R>>>>"
    field = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(MMMM)/DA(/Helv 20 Tf 1 0 0 rg)/F 4/Rect[20 40 72 72]>>"
    form = b"/AcroForm<</Fields[1002 0 R]/NeedAppearances true/DR<</Font<</Helv 1003 0 R>>>>/DA(/Helv 20 Tf)>>"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = {1000: stamp, 1001: appearance, 1002: field, 1003: font}
    pixels = render(sandbox, Page(extra=b"/Annots[1000 0 R 1002 0 R]"), catalog=form, objects=objects)
    assert tuple(pixels[70, 2]) == BLUE
    of_field = pixels[0:32, 20:72].reshape(-1, 3).astype(int)
    assert (of_field[:, 0] - of_field[:, 2] > 100).any(), "the text of a field without an appearance of its own"


def test_layer_that_is_off_is_not_seen(sandbox):
    layers = b"/OCProperties<</OCGs[1000 0 R 1001 0 R]/D<</OFF[1001 0 R]>>>>"
    objects = {1000: b"<</Type/OCG/Name(on)>>", 1001: b"<</Type/OCG/Name(off)>>"}
    content = b"/OC /On BDC " + filled(0, 1, 0) + b"EMC /OC /Off BDC " + filled(1, 0, 0) + b"EMC"
    page = Page(content=content, extra=b"/Resources<</Properties<</On 1000 0 R/Off 1001 0 R>>>>")
    assert tuple(render(sandbox, page, catalog=layers, objects=objects)[36, 36]) == GREEN


def test_scan_is_a_page_of_one_picture(sandbox):
    sink = io.BytesIO()
    Image.new("RGB", (40, 40), BLUE).save(sink, "PDF", resolution=40)
    pixels = picture(sandbox.render(sink.getvalue(), 1))
    assert pixels.shape == (72, 72, 3)
    assert abs(pixels[36, 36].astype(int) - BLUE).max() <= 4


@pytest.mark.parametrize("sides", [(14_400, 14_400), (1e6, 1e6), (100_000, 20)])
def test_page_beyond_max_pixels_is_rendered_at_the_largest_dpi_that_fits(sandbox, sides):
    page = Page(content=filled(1, 0, 0, (0, 0, *sides)), width_pt=sides[0], height_pt=sides[1])
    rendered = sandbox.render(Pdf(pages=[page]).encoded(), 1)
    height, width, _ = picture(rendered).shape
    assert rendered.flags == (PAGE_SCALED,)
    assert 0.9 * 10**6 < width * height <= 10**6
    assert sandbox.render(grey_pages(1), 1).flags == ()


def test_scale_is_the_largest_that_fits():
    assert scale_that_fits(72, 72, 2.0, 144 * 144) == 2.0
    assert 1.98 < scale_that_fits(72, 72, 2.0, 144 * 144 - 1) < 2.0
    assert scale_that_fits(1e9, 0.001, 2.0, 100) == pytest.approx(1e-7)


def test_grey_page_is_a_picture_of_one_channel(sandbox):
    modes = [
        Image.open(io.BytesIO(sandbox.render(Pdf(pages=[Page(content=filled(*colour))]).encoded(), 1).encoded)).mode
        for colour in ((0.5, 0.5, 0.5), (0.5, 0.5, 0.51))
    ]
    assert modes == ["L", "RGB"]


def test_tiny_page_has_a_pixel_and_one_without_sides_those_of_a_letter(sandbox):
    assert render(sandbox, Page(width_pt=0.5, height_pt=0.5)).shape == (1, 1, 3)
    assert render(sandbox, Page(width_pt=0, height_pt=0)).shape == (792, 612, 3)


def test_document_is_sent_once_for_all_its_pages(sandbox):
    encoded = grey_pages(5)
    assert not sandbox.holds(encoded)
    assert sandbox.num_pages(encoded) == 5
    assert sandbox.holds(encoded)
    assert [int(picture(sandbox.render(encoded, page))[0, 0, 0]) for page in range(1, 6)] == [1, 2, 3, 4, 5]
    assert sandbox.num_pages(grey_pages(2)) == 2
    assert not sandbox.holds(encoded)


def test_document_that_is_none_is_refused_each_time_it_is_asked_about(sandbox):
    for data, words in [
        (b"<html>404</html>", "no PDF document"),
        (Pdf(pages=[Page()], trailer=ENCRYPTED).encoded(), "needs a password"),
        (Pdf(pages=[]).encoded(), "no pages"),
    ]:
        errors = [
            failure(lambda data=data: sandbox.num_pages(data)),
            failure(lambda data=data: sandbox.render(data, 1)),
        ]
        assert {error.kind for error in errors} == {ErrorKind.UNREADABLE}
        assert all(words in error.message for error in errors)


def form(of: int) -> bytes:
    return b"/Type/XObject/Subtype/Form/BBox[0 0 72 72]/Resources<</XObject<</F %d 0 R>>>>" % of


def test_page_that_never_ends_costs_its_time_and_no_other():
    forms = {1000 + level: stream(b"/F Do " * 10, form(1001 + level)) for level in range(12)}
    forms[1012] = stream(filled(0, 0, 0), b"/Type/XObject/Subtype/Form/BBox[0 0 72 72]")
    bomb = Page(content=b"/F Do", extra=b"/Resources<</XObject<</F 1000 0 R>>>>")
    encoded = Pdf(pages=[Page(content=filled(1, 0, 0)), bomb, Page()], objects=forms).encoded()
    # It fills memory as well, 1 GB in two seconds of a fast machine.
    with closing(PdfSandbox(settings(timeout_s=1, memory_mb=8192))) as sandbox:
        error = failure(lambda: sandbox.render(encoded, 2))
        assert error.kind is ErrorKind.DECODER_TIMED_OUT
        assert "rendering its page took longer than decode_timeout_s = 1, twice" in error.message
        assert tuple(picture(sandbox.render(encoded, 1))[0, 0]) == RED


def test_page_that_needs_more_memory_than_there_is_fails_alone():
    encoded = Pdf(pages=[Page(width_pt=14_000, height_pt=14_000), Page()]).encoded()
    with closing(PdfSandbox(settings(max_pixels=10**9, memory_mb=512))) as sandbox:
        assert failure(lambda: sandbox.render(encoded, 1)).kind is ErrorKind.DECODER_OUT_OF_MEMORY
        assert tuple(picture(sandbox.render(encoded, 2))[0, 0]) == WHITE


def test_picture_that_is_a_bomb_meets_the_limit_on_memory():
    declared = b"/Type/XObject/Subtype/Image/Width 60000/Height 60000/ColorSpace/DeviceRGB/BitsPerComponent 8"
    page = Page(content=b"72 0 0 72 0 0 cm /I Do", extra=b"/Resources<</XObject<</I 1000 0 R>>>>")
    encoded = Pdf(pages=[page, Page()], objects={1000: stream(bytes(100), declared)}).encoded()
    with closing(PdfSandbox(settings(memory_mb=512))) as sandbox:
        end = end_of(sandbox, encoded, 1)
        assert end in ("rendered", ErrorKind.DECODER_CRASHED, ErrorKind.DECODER_OUT_OF_MEMORY)
        assert tuple(picture(sandbox.render(encoded, 2))[0, 0]) == WHITE


DEFLATED_ZEROS = zlib.compress(bytes(200_000_000), 9)
HOSTILE = {
    "content that unfolds to 200 MB": Pdf(
        pages=[Page(extra=b"/Contents 1000 0 R")], objects={1000: stream(DEFLATED_ZEROS, b"/Filter/FlateDecode")}
    ),
    "arrays a million deep": Pdf(pages=[Page(content=b"[" * 1_000_000)]),
    "states saved a million times": Pdf(pages=[Page(content=b"q " * 1_000_000)]),
    "form within itself": Pdf(
        pages=[Page(content=b"/F Do", extra=b"/Resources<</XObject<</F 1000 0 R>>>>")],
        objects={
            1000: stream(b"/F Do", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</F 1000 0 R>>>>")
        },
    ),
    "negative sides": Pdf(pages=[Page(width_pt=-72, height_pt=-72)]),
    "annotations that are none": Pdf(pages=[Page(extra=b"/Annots[1 0 R 2 0 R 99 0 R null 7 (x)]")]),
    "script that runs when it is opened": Pdf(
        pages=[Page()], catalog=b"/OpenAction<</S/JavaScript/JS(while\\(1\\);)>>"
    ),
    "file to be started": Pdf(pages=[Page()], catalog=b"/OpenAction<</S/Launch/F(/bin/sh)>>"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_document_that_wants_to_do_harm_is_rendered_or_refused_and_the_next_is_fine(hostile):
    with closing(PdfSandbox(settings(timeout_s=20, memory_mb=512))) as sandbox:
        end = end_of(sandbox, hostile.encoded(), 1)
        assert end in ("rendered", ErrorKind.DECODER_FAILED, ErrorKind.DECODER_CRASHED, ErrorKind.DECODER_OUT_OF_MEMORY)
        assert end_of(sandbox, grey_pages(1), 1) == "rendered"


def test_page_tree_that_bites_its_tail_ends(sandbox):
    encoded = document({1: b"<</Type/Catalog/Pages 2 0 R>>", 2: b"<</Type/Pages/Kids[2 0 R]/Count 3>>"})
    kind = failure(lambda: sandbox.render(encoded, 1)).kind
    assert kind in (ErrorKind.UNREADABLE, ErrorKind.DECODER_FAILED)


def test_page_that_is_not_there_is_a_failure_of_its_own(sandbox):
    encoded = Pdf(pages=[Page()], count=3).encoded()
    assert tuple(picture(sandbox.render(encoded, 1))[0, 0]) == WHITE
    assert failure(lambda: sandbox.render(encoded, 2)).kind in (ErrorKind.DECODER_FAILED, ErrorKind.CHANGED)
    assert failure(lambda: sandbox.render(encoded, 9)).kind is ErrorKind.CHANGED


def test_damaged_document_is_rendered_or_refused(sandbox):
    whole = Pdf(pages=[Page(content=filled(1, 0, 0))]).encoded()
    ends = []
    for seed in range(60):
        generator, damaged = np.random.default_rng(seed), bytearray(whole)
        for place in generator.integers(0, len(damaged), 1 + seed % 6):
            damaged[place] ^= 1 << int(generator.integers(0, 8))
        ends.append(end_of(sandbox, bytes(damaged[: len(damaged) - 7 * (seed % 4)]), 1))
    assert {*ends} <= {"rendered", ErrorKind.UNREADABLE, ErrorKind.DECODER_FAILED}
    assert len({*ends}) >= 2


def test_nothing_but_pdfium_is_loaded_where_documents_are_read():
    script = "import sys, pipeline.pdf_child; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {"torch", "ray", "pyarrow", "pydantic", "boto3"}.isdisjoint(done.stdout.split())
