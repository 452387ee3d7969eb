"""The short run of the fuzzer; ``make fuzz`` is the long one."""

import pytest

from tests.volumes import fuzz


@pytest.mark.parametrize("seed", range(5))
def test_mutations_are_read_or_refused(seed):
    tally = fuzz.run(1000, seed)
    assert tally["refused"] > 500
    assert tally["read"] > 50
