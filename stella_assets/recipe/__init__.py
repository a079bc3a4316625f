"""The recipe: one YAML file that says what to distil, read into closed, typed models."""

from stella_assets.recipe.corpus import Corpus, FileSource, HuggingFace, JsonLines, Parquet, PythonDocs, Source, Text
from stella_assets.recipe.part import Located, ModelSource, Part, RecipeError
from stella_assets.recipe.read import parse_recipe, read_raw, read_recipe
from stella_assets.recipe.recipe import Evaluation, Recipe, Release, TaskKind
from stella_assets.recipe.teachers import LsaTeacher, SentenceTransformersTeacher, Teacher
from stella_assets.recipe.training import LossWeights, ShortHeadLossWeights, Stage, Student

__all__ = [
    "Corpus",
    "Evaluation",
    "FileSource",
    "HuggingFace",
    "JsonLines",
    "Located",
    "LossWeights",
    "LsaTeacher",
    "ModelSource",
    "Parquet",
    "Part",
    "PythonDocs",
    "Recipe",
    "RecipeError",
    "Release",
    "SentenceTransformersTeacher",
    "ShortHeadLossWeights",
    "Source",
    "Stage",
    "Student",
    "TaskKind",
    "Teacher",
    "Text",
    "parse_recipe",
    "read_raw",
    "read_recipe",
]
