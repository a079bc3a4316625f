"""YAML as recipes use it: no key twice, no tree that cannot be walked through, no text that cannot be written."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError

from stella_assets.core.secrets import hide_secrets

MOST_NODES = 100_000
"""Of a recipe, with every alias written out. A few aliases of aliases stand for more than fits in memory."""
DEEPEST = 50
LONGEST_BITS = 64
"""Of an integer. Python cannot even write out one of some thousand digits."""
NAMED = re.compile(r"(?<=alias|nchor|andle|e tag) (?!'tag:yaml\.org)(?P<quote>['\"]).*?(?P=quote)")
"""What PyYAML quotes of the text: a password may begin with `*`, `&` or `!`."""


def load_yaml(text: str) -> Any:
    """The only document of a text.

    Args:
        text: YAML 1.1, as PyYAML reads it.

    Raises:
        yaml.YAMLError: The text is not YAML, or has something that no recipe can have. The message says where, and
            shows nothing of the text but keys.
    """
    loader = _Loader(text)
    try:
        try:
            node = loader.get_single_node()
        except (ArithmeticError, ValueError):  # e.g. `"\\U00110000"`
            mark = loader.get_mark()
            raise ConstructorError(None, None, "there is no such character", mark) from None
        if node is None:
            return None
        _size(node, {}, 0)
        return loader.construct_document(node)
    except MarkedYAMLError as error:
        raise yaml.YAMLError(_describe(error)) from None
    except RecursionError:
        raise yaml.YAMLError("Lists and mappings are nested too deeply.") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML without keys that silently replace earlier ones."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A list with the tag of a mapping, which PyYAML reads after `construct_object` has returned.
        if not isinstance(node, yaml.MappingNode):
            raise _refusal("this is not a mapping", node)
        seen = set()
        for key_node, _ in node.value:
            # YAML 1.2 forbids duplicate keys, but PyYAML keeps the last one: a setting would be lost without a
            # message.
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refusal("a list or a mapping cannot be a key", key_node)
            if key in seen:
                raise _refusal(f"key {key!r} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        # PyYAML lets through what Python says to e.g. `2026-99-99`, `0x_`, `!!bool x`, or a list as a key.
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise _refusal(f"this cannot be read as {node.tag.rpartition(':')[2]}", node) from None
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= each <= "\udfff" for each in value)):
            raise _refusal("this text has null, or half of a surrogate pair, which no file can hold", node)
        if isinstance(value, int) and value.bit_length() > LONGEST_BITS:
            raise _refusal(f"this integer has more than {LONGEST_BITS} bits", node)
        return value


def _describe(error: MarkedYAMLError) -> str:
    """What is wrong and where. PyYAML's own message shows the line, where somebody may have written a key."""
    parts = [f"Line {mark.line + 1}, column {mark.column + 1}"] if (mark := error.problem_mark) else []
    if error.context:
        begun = error.context_mark
        parts += [
            error.context + (f" that begins in line {begun.line + 1}, column {begun.column + 1}" if begun else "")
        ]
    return hide_secrets(NAMED.sub("", ": ".join([*parts, error.problem or "this is not YAML"]))) + "."


def _refuse_bytes(_loader: _Loader, node: yaml.Node) -> None:
    raise _refusal("a recipe has no bytes", node)


_Loader.add_constructor("tag:yaml.org,2002:binary", _refuse_bytes)


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many nodes there are at a node and below it, with aliases written out."""
    if depth > DEEPEST:  # also where a node is part of itself
        raise _refusal(f"more than {DEEPEST} lists and mappings are nested here", node)
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(each, known, depth + 1) for each in nodes)
    if known[id(node)] > MOST_NODES:
        raise _refusal(f"this has more than {MOST_NODES:,} values, with aliases written out", node)
    return known[id(node)]


def _refusal(words: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(None, None, words, node.start_mark)
