"""`labelmill recipes`: which recipes there are, and what one of them says."""

from rich.console import Console
from rich.table import Table

from jobs.exit_codes import EXIT_DONE
from pipeline.recipes import built_in_names, load_recipe


def list_recipes() -> int:
    table = Table("recipe", "table", "what it makes", "styles", "hints", box=None, pad_edge=False)
    for name in built_in_names():
        file = load_recipe(name).file
        table.add_row(name, str(file.table), file.about, ", ".join(file.styles), ", ".join(file.hints))
    Console().print(table)
    print("\nlabelmill recipes show NAME prints one; a file of your own, made from it, goes into a job by its path.")
    return EXIT_DONE


def show_recipe(name: str) -> int:
    """As the file stands, so that it can be copied and changed."""
    print(load_recipe(name).text, end="")
    return EXIT_DONE
