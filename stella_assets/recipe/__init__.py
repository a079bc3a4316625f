"""The recipe: one YAML file that says what to distil, read into closed, typed models."""

from stella_assets.recipe.corpus import (
    Augment,
    Clean,
    Columns,
    Corpus,
    Csv,
    Decontaminate,
    Deduplicate,
    EvaluationSet,
    FileSource,
    HuggingFace,
    JsonLines,
    LanceTable,
    Parquet,
    PythonDocs,
    Role,
    Rules,
    Source,
    Text,
)
from stella_assets.recipe.evaluation import HELD_OUT, Evaluation, HeldOut, HeldOutKind, OwnKind, OwnTask
from stella_assets.recipe.part import Located, ModelSource, Part, RecipeError
from stella_assets.recipe.read import parse_recipe, read_raw, read_recipe
from stella_assets.recipe.recipe import RESERVED_NAMES, Recipe
from stella_assets.recipe.redistil import Redistil
from stella_assets.recipe.release import Gate, Release
from stella_assets.recipe.teachers import LsaTeacher, SentenceTransformersTeacher, Teacher
from stella_assets.recipe.training import LossWeights, ShortHeadLossWeights, Stage, Student

__all__ = [
    "HELD_OUT",
    "RESERVED_NAMES",
    "Augment",
    "Clean",
    "Columns",
    "Corpus",
    "Csv",
    "Decontaminate",
    "Deduplicate",
    "Evaluation",
    "EvaluationSet",
    "FileSource",
    "Gate",
    "HeldOut",
    "HeldOutKind",
    "HuggingFace",
    "JsonLines",
    "LanceTable",
    "Located",
    "LossWeights",
    "LsaTeacher",
    "ModelSource",
    "OwnKind",
    "OwnTask",
    "Parquet",
    "Part",
    "PythonDocs",
    "Recipe",
    "RecipeError",
    "Redistil",
    "Release",
    "Role",
    "Rules",
    "SentenceTransformersTeacher",
    "ShortHeadLossWeights",
    "Source",
    "Stage",
    "Student",
    "Teacher",
    "Text",
    "parse_recipe",
    "read_raw",
    "read_recipe",
]
