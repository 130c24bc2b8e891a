"""Turns with the backlog of a tenant."""

from workers.serving.turns import Turns


def test_one_partition_at_a_time_works_on_a_backlog_of_a_tenant() -> None:
    turns, woken = Turns(), list[str]()

    def second() -> None:
        woken.append("second")

    def third() -> None:
        woken.append("third")

    assert turns.take("flood", lambda: woken.append("first"))
    assert not turns.take("flood", second)
    assert not turns.take("flood", third)
    assert not turns.take("flood", second)
    assert turns.take("quiet", second)
    turns.give_back(["quiet"])
    assert woken == []
    turns.give_back(["flood"])
    assert woken == ["second", "third"]
    assert turns.take("flood", second)
