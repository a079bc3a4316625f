"""What a run would cost, as `plan`, `validate` and the first lines of `run` say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from stella_assets.core.progress import duration, money
from stella_assets.core.runner import Runner
from stella_assets.pipelines.cli.console import make_table
from stella_assets.pipelines.cli.printing import note
from stella_assets.recipe import Graph

if TYPE_CHECKING:
    from stella_assets.lineage.plan import Planned
    from stella_assets.lineage.probe import Probe

LONG_SECONDS = 12 * 3600.0
"""Above this a run says what would shorten it."""
SHORTER = {
    "teacher_vectors": "a `limit` for the sources, a shorter `max_length` of the teacher, a smaller teacher or a GPU",
    "stage_": "fewer `texts`, `epochs` or `steps` of that stage, a shorter `student.max_length`, fewer layers or a GPU",
    "scores": "fewer `evaluation.tasks`, or a GPU",
}
"""What shortens a step, by the beginning of its name."""


def predict(graph: Graph, runner: Runner, probe: bool) -> list[Planned]:
    """What a run would do, and what it would cost.

    Args:
        graph: Of the recipe.
        runner: Finds artefacts.
        probe: Whether a few texts may be read and a few steps trained, which takes some ten seconds, where no past run
            tells. It is left out where the run itself is not much longer.
    """
    # Here, as other commands print costs that they were given.
    from stella_assets.corpus.look import expected_size, largest_size, look
    from stella_assets.lineage.plan import plan, size_of
    from stella_assets.lineage.probe import Probe, can_probe, is_worth_a_probe, known_probe, make_probe

    found = known_probe(graph, runner)
    planned = plan(graph, runner, found)
    measured = {*graph.teachers.values(), *graph.stages}
    unknown = [step.name for step in measured]
    corpus = graph.recipe.corpus
    if not probe or not any(each.asset in unknown and each.seconds is None for each in planned):
        return _with_tokens(graph, runner, planned, found)
    size = size_of(graph, runner) or largest_size(corpus)
    # Looking takes seconds, too, which a small recipe does without.
    if size is None or is_worth_a_probe(graph, size) or any(teacher.paid for teacher in graph.recipe.teachers):
        looked = look(corpus)
        size = size_of(graph, runner) or expected_size(corpus, looked)
        if size and can_probe(graph.recipe) and is_worth_a_probe(graph, size):
            note(f"{graph.recipe.name}: a few texts and steps are measured, to tell how long the whole takes.")
            found = make_probe(graph, runner, looked)
    return plan(graph, runner, found or (Probe(size, {}) if size else None))


def _with_tokens(graph: Graph, runner: Runner, planned: list[Planned], found: Probe | None) -> list[Planned]:
    """The plan with the tokens of teachers that cost money: without a corpus, a look at the sources tells them."""
    from stella_assets.corpus.look import expected_size, look
    from stella_assets.lineage.plan import plan, size_of
    from stella_assets.lineage.probe import Probe

    if size_of(graph, runner) is not None or not any(teacher.paid for teacher in graph.recipe.teachers):
        return planned
    size = expected_size(graph.recipe.corpus, look(graph.recipe.corpus))
    return planned if size is None else plan(graph, runner, Probe(size, found.steps if found else {}))


def cost_table(planned: Sequence[Planned], title: str, reasons: bool = False) -> Table | str:
    """A table of what would be made.

    Args:
        planned: All steps.
        title: Above it.
        reasons: Whether it says why each is made.
    """
    made = _made(planned)
    costs_money = any(each.money or each.charges for each in made)
    rows = [
        {
            "asset": each.asset,
            **({"because": "\n".join(each.because)} if reasons else {}),
            "work": each.work,
            "time": "?" if each.seconds is None else duration(each.seconds),
            "memory MiB": "" if each.memory_mib is None else f"{each.memory_mib:,}",
            "disk MiB": "" if each.disk_mib is None else f"{each.disk_mib:,.0f}",
            **({"tokens": _count(each.tokens), "dollars": _dollars(each.money)} if costs_money else {}),
            "known from": each.source or "unknown",
        }
        for each in made
    ]
    return (
        make_table(rows, title, right=("time", "memory MiB", "disk MiB", "tokens", "dollars"))
        if rows
        else f"{title}: none."
    )


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _dollars(amount: float | None) -> str:
    return "?" if amount is None else money(amount)


def charge_lines(planned: Sequence[Planned]) -> list[str]:
    """What others would charge, one line for each teacher that costs money."""
    return [f"{each.asset}, {each.work}: {each.charges}." for each in _made(planned) if each.charges]


def total_line(planned: Sequence[Planned]) -> str:
    """How long all of it takes, and how sure that is."""
    made = _made(planned)
    existing = f"{len(planned) - len(made)} of {len(planned)} artefacts exist"
    if not made:
        return f"{existing}."
    unknown = sum(each.seconds is None for each in made)
    if unknown == len(made):
        return f"{existing}; nothing tells yet how long the others take."
    # A lower bound while some are unknown; the line says how many.
    more = f", not counting {unknown} whose time nothing tells" if unknown else ""
    charged = sum(each.money or 0 for each in made)
    dollars = f", and {money(charged)} dollars" if charged else ""
    return f"{existing}; the others take about {duration(_seconds(made))}{more}{dollars}."


def say_costs(planned: Sequence[Planned], device: str) -> None:
    """The first lines of a run: what it takes, and what would shorten it where that is long.

    Args:
        planned: All steps.
        device: What it computes with.
    """
    made = _made(planned)
    for each in made:
        # The steps that take long, or do something that people count.
        if each.seconds is not None and (each.work or each.seconds >= 1):
            costs = [duration(each.seconds)]
            costs += [f"{each.memory_mib:,} MiB memory"] if each.memory_mib else []
            costs += [f"{each.disk_mib:,.0f} MiB disk"] if each.disk_mib else []
            costs += [f"{money(each.money)} dollars"] if each.money else []
            work = f" ({each.work})" if each.work else ""
            note(f"  {each.asset}{work}: {', '.join(costs)}, from {each.source}")
        elif each.work:
            note(f"  {each.asset} ({each.work}): unknown time")
    for line in charge_lines(planned):
        note(f"  {line}")
    if made:
        note(f"{total_line(planned)} Device: {device}.")
    if (seconds := _seconds(made)) > LONG_SECONDS:
        longest = max(made, key=lambda each: each.seconds or 0)
        shorter = next((words for name, words in SHORTER.items() if longest.asset.startswith(name)), "a faster device")
        note(
            f"This run takes about {duration(seconds)} on this device, {duration(longest.seconds or 0)} of it in "
            f"{longest.asset}; {shorter} would shorten it."
        )


def _made(planned: Sequence[Planned]) -> list[Planned]:
    return [each for each in planned if each.state == "made"]


def _seconds(made: Sequence[Planned]) -> float:
    """What is known of the time, so a lower bound."""
    return sum(each.seconds or 0 for each in made)
