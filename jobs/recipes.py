"""`labelmill recipes`: which recipes there are, and what one of them says."""

from jobs.exit_codes import EXIT_DONE
from pipeline.recipes import built_in_names, load_recipe


def list_recipes() -> int:
    for name in built_in_names():
        file = load_recipe(name).file
        more = {"table": [str(file.table)], "styles": file.styles, "hints": list(file.hints)}
        print(f"{name}: {file.about}")
        print("    " + "; ".join(f"{key}: {', '.join(values)}" for key, values in more.items() if values))
    print("\nlabelmill recipes show NAME prints one; a file of your own, made from it, goes into a job by its path.")
    return EXIT_DONE


def show_recipe(name: str) -> int:
    """As the file stands, so that it can be copied and changed."""
    print(load_recipe(name).text, end="")
    return EXIT_DONE
