"""Which artefact of a lineage belongs to which step of a graph."""

from __future__ import annotations

from typing import Any

from stella_assets.core.lineage import Node
from stella_assets.core.step import Step, upstream


def match_steps(last: Step[Any], node: Node) -> dict[Step[Any], Node | None]:
    """The artefact of each step that a step depends on, from the lineage of an artefact of that step.

    Steps and artefacts are matched along their inputs, not by name: two steps may share a family, e.g. the stages of
    two seeds.

    Args:
        last: The step.
        node: An artefact of it.

    Returns:
        The artefacts by step, inputs first; None for a step that the lineage does not have.
    """
    found: dict[Step[Any], Node | None] = {last: node}
    queue = [last]
    for step in queue:  # grows while it is read
        at = found[step]
        inputs = at.named_inputs if at else {}
        for each, name in step.input_names.items():
            if each not in found:
                # None for what only a step without an artefact leads to: there is no manifest to follow.
                found[each] = inputs.get(name)
                queue.append(each)
    # Steps that only come before (`order_after`) are no inputs, so no manifest names them.
    return {step: found[step] for step in upstream(last, order=False)}
