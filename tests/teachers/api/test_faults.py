"""Whatever a service does, the documentation says what comes of it."""

from collections.abc import Iterator

import pytest

from stella_assets.core.markup import markdown_table
from tests.api_server import StandIn
from tests.teachers.api.fault_cases import HEAD, PAGE, Case, cases, observe, served

CASES = cases()
DOCUMENTED = PAGE.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[StandIn, str]]:
    with served() as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_what_comes_of_a_fault_is_what_the_table_says(case: Case, server: tuple[StandIn, str]):
    row = observe(case, *server)
    assert markdown_table(HEAD, [row], figures=False, markup=True).splitlines()[-1] in DOCUMENTED


def test_the_table_has_no_other_rows():
    first = next(number for number, line in enumerate(DOCUMENTED) if line.startswith(f"| {HEAD[0]} |"))
    rows = [line for line in DOCUMENTED[first + 2 :] if line.startswith("|")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [case.words for case in CASES]
