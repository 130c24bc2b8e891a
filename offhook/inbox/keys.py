"""The name of every key and channel that Offhook has in Redis; docs/redis-keys.md describes each.

Keys of a partition share a hash tag, so that partitions can be spread over a cluster.
"""

QUARANTINE = "offhook:quarantine"
REFUSED = "offhook:refused"
DELIVERIES = "offhook:deliveries"
EXTENSIONS = "offhook:extensions"
HABITS = "offhook:habits"
SILENT = "offhook:habits:silent"
DAILY_SUMMARY = "offhook:summary"


def inbox(partition: int) -> str:
    return _partition(partition, "inbox")


def last(partition: int) -> str:
    return _partition(partition, "last")


def written(partition: int, writer: str) -> str:
    return _partition(partition, "written", writer)


def seen(partition: int, mark: str) -> str:
    return _partition(partition, "seen", mark)


def awake(partition: int, handler: str) -> str:
    return _partition(partition, "awake", handler)


def parked(partition: int, handler: str) -> str:
    return _partition(partition, "parked", handler)


def attempts(partition: int, handler: str) -> str:
    return _partition(partition, "attempts", handler)


def lane(partition: int, handler: str, call: str) -> str:
    return _partition(partition, "lane", handler, call)


def circuit(partition: int, handler: str) -> str:
    return _partition(partition, "circuit", handler)


def failing(partition: int, handler: str) -> str:
    return _partition(partition, "failing", handler)


def counts(partition: int, handler: str) -> str:
    return _partition(partition, "counts", handler)


def call(partition: int, call: str) -> str:
    return _partition(partition, "call", call)


def calls(partition: int) -> str:
    return _partition(partition, "calls")


def live(partition: int) -> str:
    return _partition(partition, "live")


def settling(partition: int) -> str:
    return _partition(partition, "settling")


def scheduled(job: str) -> str:
    return f"offhook:scheduled:{job}"


def phones(pbx: str) -> str:
    return f"offhook:phones:{pbx}"


def reconciled(pbx: str) -> str:
    return f"offhook:reconciled:{pbx}"


def memory(handler: str, name: str) -> str:
    return f"offhook:memory:{handler}:{name}"


def memory_lock(handler: str, name: str) -> str:
    return f"{memory(handler, name)}:lock"


def lookup_name(lookup: str, number: str) -> str:
    return f"offhook:lookup:{lookup}:name:{number}"


def lookup_asking(lookup: str, number: str) -> str:
    return f"offhook:lookup:{lookup}:asking:{number}"


def lookup_failures(lookup: str) -> str:
    return f"offhook:lookup:{lookup}:failures"


def _partition(partition: int, *names: str) -> str:
    return f"offhook:{{{partition}}}:{':'.join(names)}"
