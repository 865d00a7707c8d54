"""The tab that tries the checkpoint: images and recipes in, answers as they are written out.

The generator that Gradio runs for a tab owns the tab's labeling: however it ends, so does that.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from jobs.app import markup
from jobs.app.asked import MARK_KINDS, Asked, asked
from pipeline.app.live import LiveAnswers
from pipeline.app.studio import Prepared, Studio, skipped
from pipeline.recipes import built_in_names, load_recipe
from schemas.job import JobError
from schemas.rows import ImageRow

REFRESH_S = 0.15
"""How often the page is told what is new. Also how soon it is noticed that a tab has been closed."""
MAX_AT_ONCE = 64
"""Tabs that are answered at the same time; more wait."""

_OWN = "as each recipe has it"
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Gradio would else write out how to call each event by a client of its own."""

Shown = tuple[Any, Any, Any, Any]
"""HTML of the message, the pictures, the answers and the tiles; a component's update leaves it as it is."""


def build(gr: Any, studio: Studio, uploads: Path) -> None:
    """Inside of `gr.Blocks`. `uploads`: the folder that Gradio puts files into, and the only one that is read."""
    names = built_in_names()
    with gr.Row():
        with gr.Column(scale=2, min_width=240):
            files = gr.File(
                label="Images (several make one sample)",
                file_count="multiple",
                type="filepath",
                height=150,
                elem_id="lm-files",
            )
            recipes = gr.Dropdown(
                names,
                value=["caption"],
                multiselect=True,
                label="Recipes",
                elem_id="lm-recipes",
            )
            about = gr.HTML(_abouts(["caption"]), elem_classes="lm-html", padding=False)
            recipes.change(_abouts, inputs=[recipes], outputs=[about], show_progress="hidden", **_PRIVATE)
            questions = gr.Textbox(label="Questions", placeholder="one on each line", lines=2, elem_id="lm-questions")
            queries = gr.Textbox(label="Things to find", placeholder="one on each line", lines=2, elem_id="lm-queries")
            with gr.Accordion("Settings", open=False, elem_id="lm-settings"):
                style = gr.Dropdown(["", *_styles(names)], value="", label="Style", info="Of recipes that have it.")
                max_new_tokens = gr.Textbox(label="Longest answer, in tokens", placeholder=_OWN, elem_id="lm-longest")
                temperature = gr.Textbox(label="Temperature", placeholder=_OWN, info="0 takes the most likely token.")
                mark_kind = gr.Dropdown(list(MARK_KINDS), value="box", label="Mark, for visual-prompt")
                mark_points = gr.Textbox(
                    label="Points of the mark", placeholder="x, y, x, y in pixels of the first image"
                )
            with gr.Row():
                run = gr.Button("Label", min_width=80, variant="primary", elem_id="lm-run")
                stop = gr.Button("Stop", min_width=80, elem_id="lm-stop")
        with gr.Column(scale=3, min_width=240):
            said = gr.HTML(elem_id="lm-said", elem_classes="lm-html", padding=False)
            shown = gr.HTML(elem_id="lm-pictures", elem_classes="lm-html", padding=False)
            answers = gr.HTML(elem_id="lm-answers", elem_classes="lm-html", padding=False)
            with gr.Accordion("What the model sees", open=False, elem_id="lm-sees"):
                tiles = gr.HTML(elem_id="lm-tiles", elem_classes="lm-html", padding=False)

    async def label(
        paths: Sequence[str] | None,
        chosen: Sequence[str] | None,
        questions: str | None,
        queries: str | None,
        style: str | None,
        max_new_tokens: str | None,
        temperature: str | None,
        mark_kind: str | None,
        mark_points: str | None,
    ) -> AsyncIterator[Shown]:
        try:
            found = _files(paths or (), uploads)
            wanted = asked(
                chosen or (),
                num_images=len(found),
                questions=questions or "",
                queries=queries or "",
                style=style or "",
                mark_kind=mark_kind or "box",
                mark_points=mark_points or "",
                max_new_tokens=max_new_tokens or "",
                temperature=temperature or "",
            )
        except ValueError as error:
            yield markup.message(str(error)), "", "", ""
            return
        async with contextlib.aclosing(_labelled(gr, studio, found, wanted)) as updates:
            async for update in updates:
                yield update

    running = run.click(
        label,
        inputs=[files, recipes, questions, queries, style, max_new_tokens, temperature, mark_kind, mark_points],
        outputs=[said, shown, answers, tiles],
        concurrency_limit=MAX_AT_ONCE,
        show_progress="hidden",
        **_PRIVATE,
    )
    stop.click(
        lambda: markup.message("Stopped.", kind="note"),
        outputs=[said],
        cancels=[running],
        show_progress="hidden",
        **_PRIVATE,
    )


async def _labelled(
    gr: Any, studio: Studio, files: Sequence[tuple[str, Path]], wanted: Asked
) -> AsyncGenerator[Shown, None]:
    yield markup.message("Reading the images …", kind="busy"), "", "", ""
    prepared = await asyncio.to_thread(studio.prepare, files, mark=wanted.mark)
    if prepared.row.error is not None:
        yield markup.message(_about_files(prepared.row.error.message, files)), "", "", ""
        return
    live = LiveAnswers()
    task = asyncio.create_task(studio.label(prepared, wanted.specs, turns=wanted.turns, watch=live))
    try:
        tiles = await asyncio.to_thread(markup.tiles, prepared.pictures)
        pictures = await asyncio.to_thread(markup.pictures, prepared.pictures, {})
        yield "", pictures, markup.live_answers(live.answers()), tiles
        version = live.version
        while not (await asyncio.wait({task}, timeout=REFRESH_S))[0]:
            is_new, version = live.version != version, live.version
            # Also where nothing is new: only a generator that gives something can be told that its tab is gone.
            yield gr.skip(), gr.skip(), markup.live_answers(live.answers()) if is_new else gr.skip(), gr.skip()
        try:
            row = task.result()
        except JobError as error:
            yield markup.message("; ".join(problem.message for problem in error.problems)), gr.skip(), "", gr.skip()
            return
        except RuntimeError as error:  # the engine has lost one of its processes, and with it all that it could do
            yield markup.message(f"The engine has ended: {error}. Start the app again."), gr.skip(), "", gr.skip()
            return
        yield await asyncio.to_thread(_result, gr, prepared, row, wanted)
    finally:
        task.cancel()


def _result(gr: Any, prepared: Prepared, row: ImageRow, wanted: Asked) -> Shown:
    if row.error is not None:
        return markup.message(f"The engine failed: {row.error.message}"), gr.skip(), "", gr.skip()
    boxes: dict[int, list[Any]] = {}
    for label in row.labels:
        boxes.setdefault(label.values.get("image_index") or 0, []).extend(label.values.get("boxes") or ())
    notes = [f"{one}." for one in skipped(wanted.specs, len(row.images))]
    return "", markup.pictures(prepared.pictures, boxes), markup.labels(row, notes), gr.skip()


def _files(paths: Sequence[str], uploads: Path) -> list[tuple[str, Path]]:
    """Gradio holds paths to its folder as well; what is read here does not hang on that."""
    found = [Path(path).resolve() for path in paths]
    for path in found:
        if not path.is_relative_to(uploads.resolve()) or not path.is_file():
            raise ValueError("The upload is not there any more: choose the file again.")
    return [(path.name, path) for path in found]


def _about_files(text: str, files: Sequence[tuple[str, Path]]) -> str:
    """Of several files, the error says itself which one it is about."""
    return f"{files[0][0]}: {text}" if len(files) == 1 and files[0][0] not in text else text


def _abouts(names: Sequence[str] | None) -> str:
    return markup.abouts({name: load_recipe(name).file.about for name in names or ()})


def _styles(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(style for name in names for style in load_recipe(name).file.styles))
