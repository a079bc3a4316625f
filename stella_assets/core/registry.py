"""Registries of kinds: one class per kind holds its settings, its behaviour and its documentation.

A kind registers itself by being decorated. Recipe unions, error paths and the tables of docs/recipe.md are built from
the registries. An installed package adds kinds through the entry point group `stella_distil.kinds`: each entry point
names a module, which is imported before the recipe's models are built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from inspect import cleandoc
from pkgutil import iter_modules
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from stella_assets.core.config import ConfigModel
from stella_assets.core.errors import UserError

ENTRY_POINTS = "stella_distil.kinds"

K = TypeVar("K", bound=ConfigModel)


class Registry(Generic[K]):
    """The kinds of one thing.

    Args:
        name: What they are kinds of, e.g. `source`.
        key: The recipe key that tells them apart.

    Example:
        >>> SOURCES = Registry["SourceConfig"]("source")
        >>> @SOURCES.register
        ... class Csv(SourceConfig):
        ...     '''Delimited files with a header.'''
        ...     kind: Literal["csv"]
    """

    def __init__(self, name: str, key: str = "kind") -> None:
        self.name = name
        self.key = key
        self._kinds: dict[str, type[K]] = {}

    def register(self, kind: type[K]) -> type[K]:
        """Add a kind; its name is the literal type of its `key`. A decorator.

        Args:
            kind: The settings model.

        Returns:
            The same class.

        Raises:
            UserError: Another class, of another module or with another qualified name, has that kind's name.
        """
        (name,) = get_args(kind.model_fields[self.key].annotation)
        known = self._kinds.get(name)
        # A module that is executed twice, e.g. by a reload, registers the same class again; that is not a clash.
        if known is not None and (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            raise UserError(
                f"{self.name} kind {name!r}: both {known.__module__} and {kind.__module__} define it.",
                "Rename one of them, or uninstall the package that adds it.",
            )
        self._kinds[name] = kind
        return kind

    def __iter__(self) -> Iterator[type[K]]:
        return iter(self._kinds.values())

    def names(self) -> list[str]:
        """Names of the kinds, in the order of registration."""
        return list(self._kinds)

    def __getitem__(self, name: str) -> type[K]:
        return self._kinds[name]

    def union(self) -> Any:
        """The annotation of a recipe key that takes any of the kinds: a union, told apart by `key`.

        Returns:
            An annotation for a pydantic field. It has the kinds registered so far, so all must be imported before.
        """
        # A discriminator needs two members or more. `Union[...]`, because `|` takes no tuple.
        kinds = tuple(self._kinds.values())
        return Annotated[Union[kinds], Field(discriminator=self.key)] if len(kinds) > 1 else kinds[0]  # noqa: UP007

    def documentation(self, base: type[ConfigModel]) -> list[tuple[str, str, list[tuple[str, FieldInfo]]]]:
        """What the reference tables show of each kind.

        Args:
            base: The class that all kinds derive from; its fields are described once, elsewhere.

        Returns:
            Name, first paragraph of the docstring, and the fields that `base` does not have, of each kind.
        """
        rows = []
        for name, kind in self._kinds.items():
            summary = cleandoc(kind.__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")
            # `model_fields` holds inherited fields too.
            own = [(key, field) for key, field in kind.model_fields.items() if key not in base.model_fields]
            rows.append((name, summary, own))
        return rows


def import_kinds(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, which registers the kinds in them: a new file needs no entry in a list.

    Args:
        package: Its `__name__`.
        path: Its `__path__`.
    """
    for module in iter_modules(path, f"{package}."):
        import_module(module.name)


def load_entry_points() -> None:
    """Import the modules that installed packages name in the entry point group `stella_distil.kinds`.

    Raises:
        UserError: A module cannot be imported.
    """
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            # Not skipped: a recipe that uses the kind would fail with a message that hides the cause.
            raise UserError(
                f"entry point {point.name!r} of {point.dist.name if point.dist else 'a package'}: {point.value} cannot "
                f"be imported ({error}).",
                "Reinstall that package, or uninstall it.",
            ) from error
