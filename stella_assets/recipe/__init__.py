"""The recipe: one YAML file that says what to distil, read into closed, typed models, and its graph of steps."""

from stella_assets.core.registry import load_entry_points

load_entry_points()  # before the unions of kinds are built

from stella_assets.recipe.graph import Graph  # noqa: E402
from stella_assets.recipe.read import RecipeError, parse_recipe, read_raw, read_recipe  # noqa: E402
from stella_assets.recipe.recipe import RESERVED_NAMES, Recipe  # noqa: E402
from stella_assets.recipe.redistil import Redistil  # noqa: E402

__all__ = [
    "RESERVED_NAMES",
    "Graph",
    "Recipe",
    "RecipeError",
    "Redistil",
    "parse_recipe",
    "read_raw",
    "read_recipe",
]
