"""The shape of the house: in every folder the imports between its rooms (files and folders) run one way."""

from collections.abc import Iterator
from functools import cache

import grimp
import pytest

MOST_ROOMS = 15
"""Files and folders in one folder."""
MOST_FLOORS = 8
"""The longest chain of rooms of one folder in which each imports the next."""


@cache
def house() -> grimp.ImportGraph:
    return grimp.build_graph("radixmesh", cache_dir=None)  # a cache may hold modules that have moved


def folders() -> list[str]:
    return sorted(module for module in house().modules if house().find_children(module))


def rooms(folder: str) -> dict[str, set[str]]:
    """For each room of `folder` the other ones from which it, or anything in it, imports."""
    graph = house()
    inside = {room: {room, *graph.find_descendants(room)} for room in graph.find_children(folder)}
    room_of = {module: room for room, modules in inside.items() for module in modules}
    return {
        room: {
            room_of[imported]
            for module in modules
            for imported in graph.find_modules_directly_imported_by(module)
            if room_of.get(imported, room) != room
        }
        for room, modules in inside.items()
    }


def storeys(arrows: dict[str, set[str]]) -> Iterator[set[str]]:
    """The rooms by floor, lowest first: each imports from lower ones only. Ends early if there is a circle."""
    left = dict(arrows)
    while floor := {room for room, below in left.items() if not below & left.keys()}:
        yield floor
        left = {room: below for room, below in left.items() if room not in floor}


@pytest.mark.parametrize("folder", folders())
def test_imports_run_one_way(folder: str) -> None:
    arrows = rooms(folder)
    in_circles = arrows.keys() - set().union(*storeys(arrows))
    assert not in_circles, {room: arrows[room] & in_circles for room in in_circles}


@pytest.mark.parametrize("folder", folders())
def test_a_folder_can_be_taken_in_at_a_glance(folder: str) -> None:
    arrows = rooms(folder)
    assert len(arrows) <= MOST_ROOMS, sorted(arrows)
    floors = list(storeys(arrows))
    assert len(floors) <= MOST_FLOORS, floors
