"""A measurement inside another one does not reset the outer one."""

import numpy as np

from stella_assets.storage.memory import STATUS, PeakMemory, return_freed_memory

MIB = 2**20


def touch(mib: int) -> int:
    return int(np.ones(mib * MIB, dtype=np.uint8).sum())


def test_a_nested_block_does_not_reset_the_outer_measurement():
    with PeakMemory() as before:
        touch(1)
    with PeakMemory() as outer:
        touch(300)
        with PeakMemory() as inner:
            touch(1)
    assert outer.peak_mib >= before.peak_mib + 200
    assert inner.peak_mib < outer.peak_mib - 100


def test_the_outer_block_sees_what_a_nested_one_used():
    with PeakMemory() as outer:
        with PeakMemory() as inner:
            touch(300)
        touch(1)
    assert outer.peak_mib >= inner.peak_mib > 200


def resident_mib() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def test_freed_memory_goes_back_to_the_system():
    blocks = [bytearray(64 * 2**10) for _ in range(4000)]  # below the size that the allocator maps on its own
    last = bytearray(64 * 2**10)
    full = resident_mib()
    del blocks
    return_freed_memory()
    assert resident_mib() < full - 150
    assert last is not None  # it lies behind the others, so that they cannot be freed by lowering the heap's end
