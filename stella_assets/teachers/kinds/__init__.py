"""Kinds of teachers, one file per kind: its settings, and how it is checked, fitted and opened.

A file in this folder registers itself. A third party adds a kind from an installed package: a module that registers a
class with `TEACHERS`.
"""

from stella_assets.core.registry import import_kinds
from stella_assets.teachers.kinds.api import ApiTeacher
from stella_assets.teachers.kinds.base import TEACHERS, TeacherConfig, TeacherModel
from stella_assets.teachers.kinds.lsa import LsaTeacher
from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersTeacher
from stella_assets.teachers.kinds.static import StaticTeacher

import_kinds(__name__, __path__)

__all__ = [
    "TEACHERS",
    "ApiTeacher",
    "LsaTeacher",
    "SentenceTransformersTeacher",
    "StaticTeacher",
    "TeacherConfig",
    "TeacherModel",
]
