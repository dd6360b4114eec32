"""Recipes: studies that can be repeated, one file per family."""

import ast
import json
from dataclasses import fields
from difflib import get_close_matches
from math import prod

from momos.study.recipes.ablations import Ablations
from momos.study.recipes.capacity import Capacity
from momos.study.recipes.compressors import Compressors
from momos.study.recipes.demo import Demo
from momos.study.recipes.grokking import Grokking
from momos.study.recipes.plane import Plane
from momos.study.recipes.recipe import Recipe as Recipe
from momos.study.recipes.simplify import Simplify
from momos.study.recipes.sizes import Sizes
from momos.study.recipes.usage import Usage

MOST_CELLS = 100_000  # of a recipe that a run folder names
RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (
        Demo,
        Simplify,
        Compressors,
        Sizes,
        Ablations,
        Capacity,
        Usage,
        Plane,
        Grokking,
    )
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


def recipe_of(text: str) -> Recipe | None:
    """The recipe that prints so, as run folders name it; None if the text is of something else.

    Raises:
        ValueError: if the settings are not, or no longer, the recipe's own.
    """
    name, bracket, _ = text.partition("(")
    if name not in RECIPES or not bracket:
        return None
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        values = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        given = {setting: json.dumps(value) for setting, value in values.items()}
        recipe = RECIPES[name]().with_settings(given)
        _check_size(recipe)
        recipe.runs()
    except (
        *(SyntaxError, TypeError, ValueError, AssertionError),
        *(KeyError, RecursionError, MemoryError),  # of texts that no recipe prints
    ) as error:
        raise ValueError(f"recipe must be one of today's, got {text!r}: {error}") from error
    return recipe


def _check_size(recipe: Recipe) -> None:
    """Refuses to list more cells than anybody runs."""
    values = (getattr(recipe, field.name) for field in fields(recipe))
    count = recipe.seeds * prod(len(value) for value in values if isinstance(value, tuple))
    if count > MOST_CELLS:
        raise ValueError(f"it must have at most {MOST_CELLS} runs, got about {count}")
