"""The name of a format -> which tables fit it, and what writes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.exports.coco import BOX_TABLES, CocoFile
from pipeline.exports.conversations import CONVERSATION_TABLES, Conversation, conversations
from pipeline.exports.destination import Destination
from pipeline.exports.finished_run import FinishedRun
from pipeline.exports.llava import LlavaFile
from pipeline.exports.marked import put_marked
from pipeline.exports.messages import MessagesFile
from pipeline.exports.parquet_with_images import ParquetWithImages
from pipeline.exports.pictures import Picture
from pipeline.exports.samples import Sample
from pipeline.exports.webdataset import WebDatasetShards
from schemas.tables import LABEL_TABLES

SCORES_TABLE = "scores"


class SampleWriter(Protocol):
    """Samples come in the order of the manifest."""

    def add(self, sample: Sample, pictures: Sequence[Picture]) -> int:
        """How many rows of the sample are left out after all."""

    def finish(self) -> None: ...


class ConversationFile(Protocol):
    def add(self, conversation: Conversation, names: Sequence[str]) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Format:
    tables: tuple[str, ...]
    open: Callable[[Destination, FinishedRun, Sequence[str]], SampleWriter]
    """From the tables that are exported."""
    holds_images: bool = False
    """In its own files, rather than beside them."""
    reads_scores: bool = False

    def beside(self, num_rows: Mapping[str, int]) -> list[str]:
        """Of an output's tables, those that are read and not exported."""
        return [SCORES_TABLE] if self.reads_scores and num_rows.get(SCORES_TABLE) else []


class ConversationWriter:
    """Samples -> their conversations, in a file of either form."""

    def __init__(self, file: ConversationFile, destination: Destination, run: FinishedRun) -> None:
        self._file, self._destination, self._told = file, destination, run.told()

    def add(self, sample: Sample, pictures: Sequence[Picture]) -> int:
        names = [picture.name for picture in pictures]
        sample_id, num_exchanges = sample.row.sample_id, 0
        for conversation in conversations(sample_id, len(names), sample.rows, sample.asked, told=self._told):
            num_exchanges += len(conversation.exchanges)
            if conversation.mark is None:
                self._file.add(conversation, names)
            else:
                marked = put_marked(self._destination, conversation.mark, sample_id, pictures[0])
                self._file.add(conversation, [marked])
        return sum(sample.rows[table].num_rows for table in CONVERSATION_TABLES if table in sample.rows) - num_exchanges

    def finish(self) -> None:
        self._file.finish()


def _llava(destination: Destination, run: FinishedRun, tables: Sequence[str]) -> SampleWriter:
    file = LlavaFile(destination, several_images=run.has_several_images(tables))
    return ConversationWriter(file, destination, run)


def _messages(destination: Destination, run: FinishedRun, tables: Sequence[str]) -> SampleWriter:
    return ConversationWriter(MessagesFile(destination), destination, run)


def _parquet(destination: Destination, run: FinishedRun, tables: Sequence[str]) -> SampleWriter:
    return ParquetWithImages(destination, tables, several_images=run.has_several_images(tables))


FORMATS: Mapping[str, Format] = {
    "llava": Format(tables=CONVERSATION_TABLES, open=_llava),
    "messages": Format(tables=CONVERSATION_TABLES, open=_messages),
    "coco": Format(tables=BOX_TABLES, open=lambda destination, run, tables: CocoFile(destination), reads_scores=True),
    "webdataset": Format(
        tables=LABEL_TABLES, open=lambda destination, run, tables: WebDatasetShards(destination), holds_images=True
    ),
    "parquet-with-images": Format(tables=LABEL_TABLES, open=_parquet, holds_images=True),
}
