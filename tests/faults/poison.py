"""A recipe that kills its worker on images of one name, as a fault of a kernel or of a driver would."""

import os
import signal
from collections.abc import Mapping, Sequence

from pipeline.recipes.ocr import Ocr
from pipeline.recipes.recipe import View
from schemas.rows import ImageRow, Label


class PoisonedOcr(Ocr):
    async def label(self, view: View, row: ImageRow, earlier: Mapping[str, Sequence[Label]]) -> list[Label]:
        if "poison" in row.image_uri:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().label(view, row, earlier)
