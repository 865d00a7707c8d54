"""A fence around a whole transcription is taken off; blocks of code that the page itself has stay."""

import pytest

from schemas.recipe_specs import RecipeSpec
from tests.pipeline.asked import ask

_SHELL = "```bash\npip install x\n```"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (f"## Install\n\n{_SHELL}\n\nThen run it.", f"## Install\n\n{_SHELL}\n\nThen run it."),
        (f"```markdown\n# A\n\n{_SHELL}\n\nEnd.\n```", f"# A\n\n{_SHELL}\n\nEnd."),
        ("```markdown\n# A\n\nB", "# A\n\nB"),
        ("Here is the page:\n\n```md\n# A\n```\nDone.", "# A"),
        ("```\nmake\n```\n\nThen wait.", "```\nmake\n```\n\nThen wait."),
        (f"Run this:\n{_SHELL}", f"Run this:\n{_SHELL}"),
        ("```\nLine 1\nLine 2\n```", "Line 1\nLine 2"),
    ],
)
def test_page_keeps_its_own_blocks_of_code(answer: str, text: str):
    (label,), _ = ask(RecipeSpec(name="ocr-markdown"), says=answer)
    assert label.values["text"] == text


@pytest.mark.parametrize("before", ["", "The table:\n\n", "Sure, this is it.\n"])
@pytest.mark.parametrize("after", ["", "\nIt has one row."])
def test_table_stands_alone_whatever_is_said_around_it(before: str, after: str):
    table = "<table><tr><td>1</td></tr></table>"
    (label,), _ = ask(RecipeSpec(name="ocr-table"), says=f"{before}```html\n{table}\n```{after}")
    assert label.values["text"] == table
