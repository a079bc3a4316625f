"""How models rank documents: dense students, late interaction and rerankers on the same queries."""
