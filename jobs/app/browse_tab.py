"""The tab that looks through an output: pages of rows, with their pictures and boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.app import markup
from pipeline.app.browse import Filter, OutputReader, Page, Place
from pipeline.previews import Preview
from schemas.errors import RowError

_MAX_PICTURES = 4
"""Of one sample that are shown."""

Stack = list[Place]
"""Where the pages so far begin; the last one is shown, or comes next."""


def build(gr: Any, reader: OutputReader) -> None:
    """Inside of `gr.Blocks`."""
    with gr.Row():
        table = gr.Dropdown(
            list(reader.tables), value=reader.tables[0], label="Table", filterable=False, elem_id="lm-table"
        )
        recipe = gr.Dropdown(
            [("all", ""), *reader.recipes], value="", label="Recipe", filterable=False, elem_id="lm-recipe"
        )
        flag = gr.Textbox(label="Flag, or kind of error", elem_id="lm-flag")
        text = gr.Textbox(label="Text", placeholder="anywhere in the row", elem_id="lm-text")
    with gr.Row():
        previous = gr.Button("Previous", min_width=80, elem_id="lm-previous", interactive=False)
        show = gr.Button("Show", min_width=80, variant="primary", elem_id="lm-show")
        following = gr.Button("Next", min_width=80, elem_id="lm-next", interactive=False)
    said = gr.HTML(elem_id="lm-page", elem_classes="lm-html", padding=False)
    rows = gr.HTML(elem_id="lm-rows", elem_classes="lm-html", padding=False)
    state = gr.State([Place()])
    filters, outputs = [table, recipe, flag, text], [said, rows, state, previous, following]

    def page(stack: Stack, table: str, recipe: str | None, flag: str | None, text: str | None) -> tuple[Any, ...]:
        wanted = Filter(recipe=recipe or "", flag=(flag or "").strip(), text=(text or "").strip())
        try:
            found = reader.page(table, wanted, stack[-1])
            cards = "".join(_card(reader, row) for row in found.rows)
        except ValueError as error:
            message = markup.message(str(error))
            return message, "", stack, gr.update(interactive=len(stack) > 1), gr.update(interactive=False)
        stack = [*stack, found.next] if found.next is not None else [*stack, stack[-1]]
        return (
            markup.message(_summary(found, len(stack) - 1), kind="note"),
            cards,
            stack,
            gr.update(interactive=len(stack) > 2),
            gr.update(interactive=found.next is not None),
        )

    def first(*filters: Any) -> tuple[Any, ...]:
        return page([Place()], *filters)

    def back(stack: Stack, *filters: Any) -> tuple[Any, ...]:
        return page(stack[:-2] or [Place()], *filters)

    how = {"outputs": outputs, "api_visibility": "private", "concurrency_limit": 4}
    for trigger in (show.click, table.change, recipe.change, flag.submit, text.submit):
        trigger(first, inputs=filters, **how)
    following.click(page, inputs=[state, *filters], **how)
    previous.click(back, inputs=[state, *filters], **how)


def build_without_output(gr: Any) -> None:
    """Where there is nothing to look through."""
    gr.HTML(markup.message("Start the app with --output OUTPUT to look through what a job has written.", kind="note"))


def _summary(found: Page, number: int) -> str:
    if found.rows:
        return f"Page {number}: {len(found.rows)} rows{'' if found.next else ', the last ones'}."
    if found.next is not None:
        return f"None of {found.num_read} rows here fits: Next searches on."
    return "No row fits." if number == 1 else "No further row fits."


def _card(reader: OutputReader, row: Mapping[str, Any]) -> str:
    sample = reader.pictures(row["sample_id"], sha256=row.get("image_sha256") or "")
    return markup.row_card(row, _pictures(sample, row))


def _pictures(found: Sequence[Preview] | RowError, row: Mapping[str, Any]) -> str:
    if isinstance(found, RowError):
        return markup.message(f"No picture: {found.message}", kind="note")
    place = row.get("image_index") or 0
    shown = [
        markup.picture(preview, alt="", boxes=(row.get("boxes") or ()) if index == place else ())
        for index, preview in enumerate(found[: max(_MAX_PICTURES, place + 1)])
    ]
    more = len(found) - len(shown)
    return "".join(shown) + (f"<small>and {more} more images</small>" if more > 0 else "")
