"""Embedding services over HTTP: what is sent, at what pace, what is retried, and what an answer must be.

Nothing here stores vectors: `ApiClient.embed` hands each answered request to its caller before it reads the next one.
Keys are arguments, and no message, `repr` or log line shows them.
"""
