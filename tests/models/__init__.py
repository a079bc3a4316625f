"""Small random models of every architecture that recipes name, in the layout in which such models are published.

    >>> from tests.models import MODELS, build
    >>> folder = build("qwen3", tmp_path)              # a model of one's own, to change
    >>> def test_it(published):                        # fixture: built once per run for all workers; never change it
    ...     SentenceTransformer(str(published("qwen3")))

A builder `MODELS[name](folder)` writes weights, configuration and a real tokenizer of that architecture into an empty
folder. All parameters are random and matter: a lost, zero or renamed tensor gives other vectors. Widths are 32, layers
3, vocabularies some 300 tokens, and `TEXTS` are sentences that these vocabularies know. `LAYOUTS` are folders of
sentence-transformers 1 to 6 of one BERT; `TRUSTED` are the models with Python code of their own.
"""

from tests.models import architectures, custom_code, layouts, static
from tests.models.registry import LAYOUTS, MODELS, TRUSTED, build
from tests.models.vocabularies import TEXTS

__all__ = ["LAYOUTS", "MODELS", "TEXTS", "TRUSTED", "architectures", "build", "custom_code", "layouts", "static"]
