"""Batches that are read while earlier ones are used."""

import subprocess
import sys

from stella_assets.training.read_ahead import read_ahead


def test_batches_come_in_order():
    assert list(read_ahead(lambda steps: [10 * step for step in steps], range(3, 20))) == [
        10 * step for step in range(3, 20)
    ]
    assert list(read_ahead(list, range(0))) == []


def test_the_steps_of_a_run_of_any_length_take_no_memory():
    code = (
        "import resource; from stella_assets.training.read_ahead import read_ahead;"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31));"
        "assert next(read_ahead(list, range(10**12))) == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
