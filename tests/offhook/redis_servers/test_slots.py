"""Which slot a command is for, and who has it."""

from redis.crc import key_slot

from offhook.redis_servers.slots import owners_of, slot_of, slot_of_key


def test_slot_is_that_of_the_first_key() -> None:
    slot = key_slot(b"{3}")
    commands: list[tuple[object, ...]] = [
        ("GET", "offhook:{3}:last"),
        ("EVALSHA", "sha", 2, "a{3}", "b{3}", "argument"),
        ("XREAD", "COUNT", 10, b"STREAMS", "a{3}", "b{3}", "0", "0"),
        ("BZMPOP", 2.0, 1, "a{3}", "MIN"),
        ("XINFO GROUPS", b"a{3}"),
    ]
    for command in commands:
        assert slot_of(command) == slot
    commands = [
        ("EVAL", "return 1", 0),
        ("TIME",),
        ("PUBSUB NUMSUB", "channel"),
        ("SCAN", 0),
        ("WAIT", 1, 100),
    ]
    for command in commands:
        assert slot_of(command) is None
    assert slot_of_key("offhook:{12}:inbox") == slot_of_key(b"{12}")


def test_host_that_a_node_leaves_open_is_its_own() -> None:
    answer = [
        (0, 99, [b"", 7001, b"id", []], [b"10.0.0.2", 7002, b"id", []]),
        (200, 200, [None, 7003, b"id"]),
    ]
    owners, nodes = owners_of(answer, ("10.0.0.1", 7001))
    assert owners[0] == owners[99] == ("10.0.0.1", 7001)
    assert owners[100] is owners[199] is None
    assert owners[200] == ("10.0.0.1", 7003)
    assert nodes == {("10.0.0.1", 7001), ("10.0.0.2", 7002), ("10.0.0.1", 7003)}
