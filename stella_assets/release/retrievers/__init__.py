"""The release of a retriever: what it must show, its folder and its card."""
