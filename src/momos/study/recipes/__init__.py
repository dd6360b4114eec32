"""Recipes: studies that can be repeated, by name."""

from dataclasses import fields
from difflib import get_close_matches
from math import prod

from momos.study.recipes.questions import (
    Capacity,
    Compressors,
    Demo,
    Grokking,
    Plane,
    Simplify,
    Usage,
)
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.records import Records
from momos.study.recipes.sizes import Ablations, Sizes
from momos.study.schema import checked, shown
from momos.study.store import Asked

MOST_CELLS = 100_000  # of a recipe that a run folder names
_KINDS = (
    Demo,
    Simplify,
    Compressors,
    Sizes,
    Ablations,
    Records,
    Capacity,
    Usage,
    Plane,
    Grokking,
)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _KINDS}


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


def recipe_of(asked: Asked) -> Recipe | None:
    """The recipe that a run folder names; None if it names something else, as a sweep.

    Raises:
        ValueError: if the settings are not, or no longer, the recipe's own.
    """
    if asked["name"] not in RECIPES:
        return None
    try:
        recipe = checked(RECIPES[asked["name"]], asked["settings"])
        values = (getattr(recipe, field.name) for field in fields(recipe))
        count = recipe.seeds * prod(len(v) for v in values if isinstance(v, tuple))
        if count > MOST_CELLS:
            raise ValueError(f"it must have at most {MOST_CELLS} runs, got about {count}")
        recipe.runs()
    except ValueError as error:
        message = f"recipe must be one of today's, got {shown(dict(asked))}: {error}"
        raise ValueError(message) from error
    return recipe
