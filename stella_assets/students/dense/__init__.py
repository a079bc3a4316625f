"""The kind `dense`: one unit vector per text and head.

`settings` is the recipe's part and loads no model library; `model` is the module that trains; `files`, `layers` and
`digests` are what is done with it.
"""
