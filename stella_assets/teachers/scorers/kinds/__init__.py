"""The kinds of scorers of pairs, one file each: settings, and how it scores a query with a document.

A file in this folder registers itself. A third party adds a kind from an installed package: a module that registers a
class with `PAIR_SCORERS`.
"""

from stella_assets.core.registry import import_kinds

import_kinds(__name__, __path__)
