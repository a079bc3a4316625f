import numpy as np
import pytest

from stella_assets.storage.keys import to_keys
from stella_assets.storage.sorted_keys import BLOCK, SortedKeys


def keys_of(numbers: np.ndarray) -> np.ndarray:
    return to_keys([f"{number:032x}" for number in numbers])


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_those_of_a_dictionary(seed: int) -> None:
    draw = np.random.default_rng(seed)
    index, known = SortedKeys(), dict[int, int]()
    for _ in range(8):
        # Few numbers, so that some are added twice, in one call and in two; sometimes in order.
        numbers = draw.integers(1, 200, size=draw.integers(0, 40))
        numbers = np.sort(numbers) if seed % 2 else numbers
        for number in numbers.tolist():
            known.setdefault(number, -1)
        before = len(index)
        for offset, number in enumerate(numbers.tolist()):
            if known[number] == -1:
                known[number] = before + offset
        index.add(keys_of(numbers))
        asked = np.arange(1, 210)
        assert index.missing(keys_of(asked)).tolist() == [i for i, n in enumerate(asked.tolist()) if n not in known]
        there = np.array(sorted(known))
        assert index.rows(keys_of(there)).tolist() == [known[number] for number in there.tolist()]
    assert set(index.doubled().tolist()) == set(range(len(index))) - set(known.values())


def test_more_keys_than_a_block_are_looked_up() -> None:
    numbers = np.arange(1, BLOCK + 1000)
    index = SortedKeys()
    index.add(keys_of(numbers[::2]))
    assert np.array_equal(index.missing(keys_of(numbers)), np.arange(1, len(numbers), 2))
