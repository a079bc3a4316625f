"""A recipe with any one thing changed is valid, or is refused with a message that a person can act on."""

from collections import Counter
from pathlib import Path

import pytest

from stella_assets.recipe import RecipeError, read_recipe
from tests.faults.hostile import YAML
from tests.faults.mutate import results

CASES = [pytest.param(100, 20, id="a sample"), pytest.param(5000, 21, id="5,000 cases", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("count", "seed"), CASES)
def test_a_changed_recipe_or_file_ends_with_a_remedy_and_never_with_a_traceback(count: int, seed: int, tmp_path: Path):
    found = list(results(tmp_path, count, seed))
    wrong = [result for result in found if result.ended not in {"valid", "refused"}]
    assert not wrong, "\n\n".join(f"{each.case.change}\n{each.ended}: {each.said}" for each in wrong[:5])
    counts = Counter(result.ended for result in found)
    assert min(counts["valid"], counts["refused"]) > count / 20  # neither everything nor nothing is refused


@pytest.mark.parametrize("value", YAML, ids=range(len(YAML)))
def test_what_yaml_allows_and_nobody_writes_is_refused_with_the_file(value: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    # A key that no recipe has, so that what can be read is refused as well.
    path.write_bytes(f"name: mine\nother: {value}\n".encode("utf-8", "surrogatepass"))
    with pytest.raises(RecipeError) as refused:
        read_recipe(path)
    assert str(path) in refused.value.message
    assert refused.value.remedy
    assert len(str(refused.value)) < 5000
