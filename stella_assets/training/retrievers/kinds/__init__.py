"""The kinds of retrievers, one file each: settings and behaviour. A file in this folder registers itself.

Importing this package does not import torch: recipes are read without it.
"""

from stella_assets.core.registry import import_kinds

import_kinds(__name__, __path__)
