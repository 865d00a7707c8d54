"""What came with a sample's image -> the texts that hints quote: by name, "" where there is nothing."""

from pipeline.metadata import PLACE
from schemas.rows import ImageRow


def facts_of(row: ImageRow) -> dict[str, str]:
    """`metadata`: when and with what the picture was taken; `place`: where, apart from it, because it may be private;
    `original`: the source's own caption."""
    facts = dict(row.metadata)
    place = facts.pop(PLACE, "")
    return {
        "metadata": "; ".join(f"{name}: {value}" for name, value in facts.items()),
        "place": place,
        "original": row.original_text or "",
    }
