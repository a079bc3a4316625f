"""A kind is one class; unions, errors and documentation are built from the registry."""

import sys
from importlib import metadata
from typing import Literal

import pytest
from pydantic import Field, TypeAdapter

from stella_assets.core.config import ConfigModel
from stella_assets.core.errors import UserError
from stella_assets.core.registry import ENTRY_POINTS, Registry, load_entry_points


class Shape(ConfigModel):
    name: str


SHAPES: Registry[Shape] = Registry("shape")


@SHAPES.register
class Circle(Shape):
    """All points at one distance from a centre.

    More about circles.
    """

    kind: Literal["circle"]
    radius: float = Field(default=1.0, description="in metres")


@SHAPES.register
class Square(Shape):
    """Four equal sides."""

    kind: Literal["square"]
    side: float


def test_a_union_takes_every_registered_kind():
    shapes = TypeAdapter(tuple[SHAPES.union(), ...])
    read = shapes.validate_python([{"kind": "square", "name": "a", "side": 2}, {"kind": "circle", "name": "b"}])
    assert [type(shape) for shape in read] == [Square, Circle]
    assert SHAPES.names() == ["circle", "square"]


def test_documentation_has_a_row_per_kind_with_its_own_keys():
    rows = SHAPES.documentation(Shape)
    assert [(name, summary) for name, summary, _ in rows] == [
        ("circle", "All points at one distance from a centre."),
        ("square", "Four equal sides."),
    ]
    assert [key for key, _ in rows[0][2]] == ["kind", "radius"]


def test_two_classes_cannot_have_one_name():
    class Other(Shape):
        kind: Literal["circle"]

    with pytest.raises(UserError, match="shape kind 'circle': both"):
        SHAPES.register(Other)


def test_a_class_of_the_same_name_in_another_module_is_another_class():
    class Circle(Shape):
        kind: Literal["circle"]

    Circle.__qualname__, Circle.__module__ = "Circle", "another_package.shapes"
    with pytest.raises(UserError, match=r"shape kind 'circle': both .* and another_package\.shapes define it"):
        SHAPES.register(Circle)


def test_an_installed_package_adds_kinds_by_its_entry_points(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "triangles.py").write_text("registered = True\n")
    about = tmp_path / "triangles-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: triangles\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntriangle = triangles\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_entry_points()
    assert sys.modules["triangles"].registered


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    point = metadata.EntryPoint("broken", "no_such_module_anywhere", ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    with pytest.raises(UserError, match=r"entry point 'broken'.*no_such_module_anywhere cannot be imported"):
        load_entry_points()
