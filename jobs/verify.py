"""`labelmill verify`: an output -> whether every input is accounted for, printed."""

import json

from jobs.exit_codes import EXIT_DONE, EXIT_FAILED
from pipeline.verify import Verification, verify


def verify_output(output: str, *, as_json: bool) -> int:
    """Returns 0 if everything adds up, else 1; an output that is no finished run raises ValueError."""
    found = verify(output)
    for problem in found.problems:
        print(f"problem: {problem}")
    if found.num_problems > len(found.problems):
        print(f"... and {found.num_problems - len(found.problems)} more")
    print(_conclusion(found))
    if as_json:
        print(json.dumps(vars(found), ensure_ascii=False))
    return EXIT_FAILED if found.num_problems else EXIT_DONE


def _conclusion(found: Verification) -> str:
    recipes = "; ".join(
        f"{recipe}: {', '.join(f'{count} {outcome}' for outcome, count in sorted(outcomes.items()))}"
        for recipe, outcomes in sorted(found.outcomes.items())
    )
    verdict = (
        f"NOT accounted for: {found.num_problems} problems"
        if found.num_problems
        else "every image is accounted for exactly once per recipe"
    )
    return f"{found.num_images} images; {recipes}\n{verdict}"
