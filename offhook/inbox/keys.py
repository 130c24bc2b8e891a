"""The name of every key and channel that Offhook has in Redis; docs/redis-keys.md describes each.

Keys of a partition share a hash tag, so that partitions can be spread over a cluster.
"""

APART = "offhook:apart"
PAUSED = "offhook:paused"
DEATHS = "offhook:deaths"
PARTITIONS = "offhook:partitions"
SCHEDULER = "offhook:scheduler"
RECEIVED = "offhook:received"
REGISTERED = "offhook:registered"
DELIVERIES = "offhook:deliveries"
EXTENSIONS = "offhook:extensions"
EXTENSION_CHANGES = "offhook:{offhook:extensions}:changes"  # in the slot of `EXTENSIONS`
HABITS = "offhook:habits"
SILENT = "offhook:habits:silent"
DIAGNOSIS = "offhook:diagnosis"
OPERATIONS = "offhook:operations"
DRIFT = "offhook:drift"
SETUP_RUN = "offhook:setup"
SETUP_LEASE = "offhook:setup:lease"
PROCESSES = "offhook:processes"
RELOAD = "offhook:reload"
TROUBLE = "offhook:{offhook:trouble}:states"
UNANNOUNCED = "offhook:{offhook:trouble}:unannounced"  # in its slot


def partition_prefix(partition: int) -> str:
    return _partition(partition, "")


def inbox(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "inbox", tenant)


def last(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "last", tenant)


def written(partition: int, writer: str) -> str:
    return _partition(partition, "written", writer)


def seen(partition: int, mark: str) -> str:
    return _partition(partition, "seen", mark)


def epoch(partition: int) -> str:
    return _partition(partition, "epoch")


def staying(partition: int) -> str:
    return _partition(partition, "staying")


def serving(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "serving", pool)


def flushed(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "flushed", pool)


def ready(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "ready", pool)


def unfinished(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "unfinished", pool)


def read(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "read", pool)


def due(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "due", pool)


def owners(partition: int) -> str:
    return _partition(partition, "owners")


def redelivering(partition: int, pool: str = "") -> str:
    return _perhaps_of(partition, "redelivering", pool)


def servers(pool: str = "") -> str:
    return f"offhook:servers:{pool}" if pool else "offhook:servers"


def known(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "known", tenant)


def behind(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "behind", tenant)


def replays(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "replays", tenant)


def folded(partition: int) -> str:
    return _partition(partition, "folded")


def saved(partition: int) -> str:
    return _partition(partition, "saved")


def parked(partition: int) -> str:
    return _partition(partition, "parked")


def attempts(partition: int) -> str:
    return _partition(partition, "attempts")


def lane(partition: int, handler: str, call: str) -> str:
    return _partition(partition, "lane", handler, call)


def circuit(handler: str) -> str:
    return f"offhook:circuit:{handler}"


def counts(partition: int, handler: str) -> str:
    return _partition(partition, "counts", handler)


def recorded(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "recorded", tenant)


def failures(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "failures", tenant)


def tried(partition: int, call: str) -> str:
    return _partition(partition, "tried", call)


def latency(partition: int) -> str:
    return _partition(partition, "latency")


def call(partition: int, call: str) -> str:
    return _partition(partition, "call", call)


def calls(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "calls", tenant)


def index(partition: int, term: str, tenant: str = "") -> str:
    return _partition(partition, "index", *([tenant] if tenant else []), term)


def indexed(partition: int, tenant: str = "") -> str:
    return _perhaps_of(partition, "indexed", tenant)


def live(partition: int) -> str:
    return _partition(partition, "live")


def settling(partition: int) -> str:
    return _partition(partition, "settling")


def process(process: str) -> str:
    return f"offhook:process:{process}"


def scheduled(job: str) -> str:
    return f"offhook:scheduled:{job}"


def phones(pbx: str, tenant: str = "") -> str:
    return _of_tenant(f"offhook:phones:{pbx}", tenant)


def listed_phones(pbx: str) -> str:
    return f"offhook:{{{EXTENSIONS}}}:phones:{pbx}"


def reconciled(pbx: str, tenant: str = "") -> str:
    return _of_tenant(f"offhook:reconciled:{pbx}", tenant)


def proof(pbx: str, tenant: str = "") -> str:
    return _of_tenant(f"offhook:proof:{pbx}", tenant)


def quarantine(tenant: str = "") -> str:
    return _of_tenant("offhook:quarantine", tenant)


def refused(tenant: str = "") -> str:
    return _of_tenant("offhook:refused", tenant)


def daily_summary(tenant: str = "") -> str:
    return _of_tenant("offhook:summary", tenant)


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


def audit(tenant: str = "") -> str:
    return _of_tenant("offhook:audit", tenant)


def calling(number: str, tenant: str = "") -> str:
    return _of_tenant(f"offhook:calling:{number}", tenant)


def wall_links(tenant: str = "") -> str:
    return _of_tenant("offhook:walls", tenant)


def last_seen(tenant: str = "") -> str:
    return _of_tenant("offhook:last-seen", tenant)


def sign_in(limit: str) -> str:
    return f"offhook:sign-in:{limit}"


def dial(limit: str) -> str:
    return f"offhook:dial:{limit}"


def request(digest: str) -> str:
    return f"offhook:request:{digest}"


def operation_lease(operation: str) -> str:
    return f"offhook:operation:{operation}:lease"


def _of_tenant(name: str, tenant: str) -> str:
    return f"{name}:{tenant}" if tenant else name


def _perhaps_of(partition: int, name: str, whose: str) -> str:
    """A key of a tenant or a pool; without one, of the operator or the shared pool."""
    return _partition(partition, name, *([whose] if whose else []))


def _partition(partition: int, *names: str) -> str:
    return f"offhook:{{{partition}}}:{':'.join(names)}"
