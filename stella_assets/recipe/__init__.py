"""The recipe: one YAML file that says what to distil, read into closed, typed models."""

from stella_assets.core.config import ConfigModel, ModelSource, PathAware, RecipeError
from stella_assets.corpus.settings import (
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
from stella_assets.evaluation.settings import HELD_OUT, CustomKind, CustomTask, Evaluation, HeldOut, HeldOutKind
from stella_assets.recipe.read import parse_recipe, read_raw, read_recipe
from stella_assets.recipe.recipe import RESERVED_NAMES, Recipe
from stella_assets.recipe.redistil import Redistil
from stella_assets.release.settings import Gate, Release
from stella_assets.teachers.settings import LsaTeacher, SentenceTransformersTeacher, Teacher
from stella_assets.training.settings import LossWeights, MatryoshkaLossWeights, Stage, Student

__all__ = [
    "HELD_OUT",
    "RESERVED_NAMES",
    "Augment",
    "Clean",
    "Columns",
    "ConfigModel",
    "Corpus",
    "Csv",
    "CustomKind",
    "CustomTask",
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
    "LossWeights",
    "LsaTeacher",
    "MatryoshkaLossWeights",
    "ModelSource",
    "Parquet",
    "PathAware",
    "PythonDocs",
    "Recipe",
    "RecipeError",
    "Redistil",
    "Release",
    "Role",
    "Rules",
    "SentenceTransformersTeacher",
    "Source",
    "Stage",
    "Student",
    "Teacher",
    "Text",
    "parse_recipe",
    "read_raw",
    "read_recipe",
]
