"""Recipes: studies that can be repeated, one file per family."""

from difflib import get_close_matches

from momos.study.recipes.capacity import Capacity
from momos.study.recipes.compressors import Compressors
from momos.study.recipes.demo import Demo
from momos.study.recipes.grokking import Grokking
from momos.study.recipes.plane import Plane
from momos.study.recipes.recipe import Recipe as Recipe
from momos.study.recipes.simplify import Simplify
from momos.study.recipes.usage import Usage

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (Demo, Simplify, Compressors, Capacity, Usage, Plane, Grokking)
}


def recipe_named(name: str) -> type[Recipe]:
    """The recipe of that name.

    Raises:
        ValueError: if there is none; names those like it.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise ValueError(
            f"a recipe must be among {', '.join(RECIPES)}, got {name!r} "
            f"(near it: {', '.join(near)})"
        )
    return RECIPES[name]
