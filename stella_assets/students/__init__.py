"""Students: what is trained, saved and released. A module or package in this folder registers the kind in it.

Importing this package loads no model library: recipes are read and steps are defined without one.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.students.base import FULL, STUDENTS, Student, StudentConfig, StudentError
from stella_assets.students.dense.settings import DenseConfig, SavedStudent

import_kinds(__name__, __path__)

__all__ = ["FULL", "STUDENTS", "DenseConfig", "SavedStudent", "Student", "StudentConfig", "StudentError"]
