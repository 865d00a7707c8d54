"""The `gates` of a recipe's step."""

from pydantic import ConfigDict

from schemas.recipe_specs import Spec


class GatesSpec(Spec):
    model_config = ConfigDict(extra="allow")
