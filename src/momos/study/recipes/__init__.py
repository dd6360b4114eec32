"""Recipes: studies that can be repeated, one file per family."""

from momos.study.recipes.capacity import Capacity
from momos.study.recipes.compressors import Compressors
from momos.study.recipes.grokking import Grokking
from momos.study.recipes.recipe import Recipe as Recipe
from momos.study.recipes.simplify import Simplify
from momos.study.recipes.usage import Usage

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe for recipe in (Simplify, Compressors, Capacity, Usage, Grokking)
}
