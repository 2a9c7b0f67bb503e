"""The groups of a mesh: who is in them, and that what one says reaches exactly these. Ranks are processes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.services.model_worker.parallel.mesh import AXES, Mesh, MeshSizes
from radixmesh.shared.errors import ConfigError
from tests.model_worker.ranks import run_ranks

SHAPES: dict[str, tuple[dict[str, int], dict[str, list[list[int]]]]] = {
    "tp and dp, experts over both": (
        {"tp": 2, "dp": 2, "ep": 4},
        {"tp": [[0, 1], [2, 3]], "dp": [[0, 2], [1, 3]], "ep": [[0, 1, 2, 3]], "pp": [[0], [1], [2], [3]]},
    ),
    "tp and pp": (
        {"tp": 2, "pp": 2, "ep": 2},
        {"tp": [[0, 1], [2, 3]], "pp": [[0, 2], [1, 3]], "ep": [[0, 1], [2, 3]], "dp": [[0], [1], [2], [3]]},
    ),
    "dp and pp": (
        {"dp": 2, "pp": 2},
        {"dp": [[0, 1], [2, 3]], "pp": [[0, 2], [1, 3]], "tp": [[0], [1], [2], [3]], "ep": [[0], [1], [2], [3]]},
    ),
}


@pytest.mark.processes
@pytest.mark.parametrize("shape", SHAPES)
def test_a_group_reaches_its_members_and_nobody_else(shape: str, tmp_path: Path) -> None:
    sizes, members = SHAPES[shape]
    ranks = connected(sizes, "gloo", tmp_path)
    for rank, found in enumerate(ranks):
        for axis, groups in {**members, "world": [[0, 1, 2, 3]]}.items():
            group = next(group for group in groups if rank in group)
            heard = {"gathered": group, "sum": sum(10**other for other in group), "last": group[-1]}
            assert found[axis] == {"place": [group.index(rank), len(group)], "device": heard, "control": heard}, axis


@pytest.mark.processes
def test_hosts_talk_whatever_the_devices_backend_carries(tmp_path: Path) -> None:
    """By the control group, for the device's own has no way for a CPU's tensors."""
    for found in connected({"tp": 2, "dp": 2}, "deviceonly", tmp_path):
        assert all(group["device"] is True for group in found.values())
        assert found["world"]["control"] == {"gathered": [0, 1, 2, 3], "sum": 1111, "last": 3}


def connected(sizes: dict[str, int], backend: str, folder: Path) -> list[dict[str, Any]]:
    """What each of four ranks found."""
    words = [str(sizes.get(axis, 1)) for axis in AXES]
    return run_ranks("tests.model_worker.mesh_rank", 4, folder, backend, *words)


@given(tp=st.integers(1, 4), dp=st.integers(1, 3), pp=st.integers(1, 3), data=st.data())
def test_every_rank_has_one_place_in_each_axis(tp: int, dp: int, pp: int, data: st.DataObject) -> None:
    divisors = [size for size in range(1, tp * dp + 1) if tp * dp % size == 0]
    sizes = MeshSizes(tp=tp, dp=dp, pp=pp, ep=data.draw(st.sampled_from(divisors)))
    assert sizes.world == tp * dp * pp
    places = []
    for rank in range(sizes.world):
        mesh = Mesh(rank, sizes)
        for axis in AXES:
            group = getattr(mesh, axis)
            assert (group.rank, group.size) == (sizes.coordinate(axis, rank), getattr(sizes, axis))
            assert (group.control.rank, group.control.size) == (group.rank, group.size)
        places.append(tuple(getattr(mesh, axis).rank for axis in ("tp", "dp", "pp")))
    assert len(set(places)) == sizes.world
    for axis in AXES:
        groups = sizes.members(axis)
        assert sorted(rank for group in groups for rank in group) == list(range(sizes.world))
        assert {len(group) for group in groups} == {getattr(sizes, axis)}
    stage = tp * dp
    assert all(group[0] // stage == group[-1] // stage for axis in ("tp", "dp", "ep") for group in sizes.members(axis))


@pytest.mark.parametrize(
    ("sizes", "world", "words"),
    [
        ({"tp": 3}, 4, "tp 3 does not divide the group's 4 ranks"),
        ({"tp": 2, "dp": 3}, 4, "dp 3 does not divide the group's 4 ranks"),
        ({"tp": 2, "pp": 0}, 4, "pp 0 does not divide the group's 4 ranks"),
        ({"tp": 2}, 4, "tp 2 x dp 1 x pp 1 is 2 ranks, but the group has 4"),
        ({"tp": 4, "dp": 2}, 4, "tp 4 x dp 2 x pp 1 is 8 ranks, but the group has 4"),
        ({"tp": 2, "dp": 2, "ep": 3}, 4, "ep 3 does not divide the 4 ranks of a stage"),
        ({"tp": 2, "pp": 2, "ep": 4}, 4, "ep 4 does not divide the 2 ranks of a stage"),
        ({"ep": -1}, 1, "ep -1 does not divide"),
    ],
)
def test_sizes_that_do_not_divide_the_ranks_are_refused(sizes: dict[str, int], world: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MeshSizes(**sizes).check(world)


def test_a_rank_outside_of_its_mesh_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank 4 is outside a group of 4"):
        Mesh(4, MeshSizes(tp=2, dp=2))
