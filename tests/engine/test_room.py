from hypothesis import given
from hypothesis import strategies as st

from handlens.engine.room import Room

rooms = st.builds(Room, prompt=st.integers(1, 99), answer=st.integers(1, 99), beams=st.integers(1, 9))


@given(rooms, rooms)
def test_a_grown_room_holds_both(one: Room, other: Room) -> None:
    assert one.grown(other).holds(one) and one.grown(other).holds(other)
    assert one.holds(other) == (one.grown(other) == one)
