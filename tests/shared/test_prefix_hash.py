"""Names of cached prefixes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.prefix_hash import block_hashes


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_hashes_agree_exactly_on_the_common_prefix(left: list[int], right: list[int], block: int) -> None:
    a, b = block_hashes(np.array(left, np.int32), block), block_hashes(np.array(right, np.int32), block)
    for i in range(min(len(a), len(b))):
        same = left[: (i + 1) * block] == right[: (i + 1) * block]
        assert (a[i] == b[i]) == same


def test_namespaces_share_nothing() -> None:
    tokens = np.arange(8, dtype=np.int32)
    assert not set(block_hashes(tokens, 4, "a").tolist()) & set(block_hashes(tokens, 4, "b").tolist())
