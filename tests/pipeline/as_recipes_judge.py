"""One answer as its recipe judges it: parsed for the recipe's table, with the gates and thresholds of its step."""

import asyncio
import dataclasses

from pipeline.recipes.asks import Ask
from pipeline.recipes.decode import Decode, RejectedAnswerError
from pipeline.recipes.files import load_recipe
from schemas.recipe_specs import RecipeSpec
from schemas.rows import Label, Mark
from tests.pipeline.asked import row_of
from tests.pipeline.outputs import ScriptedView, ScriptedViews

_MARK = Mark(kind="box", points=((10.0, 10.0), (90.0, 60.0)))
_CAPTION = Label(
    recipe="caption",
    recipe_digest="d",
    table="captions",
    item=0,
    prompt="",
    num_prompt_tokens=1,
    num_output_tokens=1,
    finish_reason="stop",
    mean_logprob=-0.2,
    values={"caption": "A dog."},
)


def flags_of(
    recipe: str,
    text: str,
    *,
    step: str = "",
    style: str | None = None,
    question: str = "",
    variant: int = 0,
    finish_reason: str = "stop",
) -> tuple[str, ...]:
    """Those of the row; of an answer that is rejected, the gate's name.

    Args:
        step: by its name; "" the last one.
        variant: which of the step's prompts was asked.
    """
    loaded = load_recipe(recipe)
    steps = tuple(one.model_copy(update={"retries": ()}) for one in loaded.file.steps)
    loaded = dataclasses.replace(loaded, file=loaded.file.model_copy(update={"steps": steps}))
    own = next(one for one in steps if one.name == step) if step else loaded.file.last
    asked = {"question": question, "query": question, "each": question, "text": "A dog."}
    decode = Decode(
        recipe=loaded,
        name=recipe,
        spec=RecipeSpec(name=recipe, style=style, variants=(variant,)),
        step=own,
        row=row_of(),
        quoted={"count": "3", "caption": "A dog on a lawn.", "mark": "red rectangle"},
    )
    ask = Ask(values=asked, mark=_MARK if own.each == "marks" else None, of=_CAPTION if own.each == "labels" else None)
    view = ScriptedView(text, finish_reason=finish_reason, num_output_tokens=40)
    try:
        return asyncio.run(decode.answer(ScriptedViews(view), ask)).flags
    except RejectedAnswerError as error:
        return (str(error).partition(":")[0],)
