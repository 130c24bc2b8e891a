"""`examine()`: looks at the whole installation."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from offhook.connection import opened
from offhook.errors import ConfigError, LaterLayout
from offhook.operations.server_check import RedisServer, about, each_of, fault, servers
from offhook.operations.status import Status, status
from offhook.plugins import check_all
from offhook.provisioning.self_test import reachability_problem
from offhook.settings import Settings, load_settings
from offhook_cli.diagnosis import (
    cluster_checks,
    configuration_checks,
    inbox_checks,
    machine_checks,
    pbx_checks,
    receiver_checks,
    server_checks,
    work_checks,
)
from offhook_cli.diagnosis.findings import Diagnosis, Finding, Findings, Verdict, judged
from offhook_cli.redaction import Redactor, secrets_in, sources


@dataclass
class Examination:
    """What was seen, for a diagnosis and a bug report.

    Attributes:
        diagnosis: without secrets.
        settings: None if they do not load.
        servers: what each server that answers says in INFO, by its setting, and a cluster's node.
        unanswered: whether a server does not answer.
        status: None if the servers do not answer.
    """

    settings: Settings | None
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    unanswered: bool = False
    status: Status | None = None
    diagnosis: Diagnosis = field(default_factory=lambda: Diagnosis([]))


def examine(*, ask_pbx: bool = False) -> Examination:
    """Look at the installation whose configuration is here. Changes nothing.

    Args:
        ask_pbx: whether to sign in to the PBXs.
    """
    plugins = check_all()
    seen = Examination(_settings())
    configuration = configuration_checks.SeenConfiguration(plugins, seen.settings)
    parts = [judged("Configuration", configuration, configuration_checks.CHECKS)]
    if seen.settings is None:
        parts.append(_unseen("Everything else", "the configuration has errors: correct them first"))
    else:
        parts += _servers(seen, seen.settings)
        parts += asyncio.run(_others(seen, seen.settings, ask_pbx=ask_pbx))
    redactor = Redactor(secrets_in(sources(seen.settings)))
    seen.diagnosis = Diagnosis(parts).with_sentences(redactor.text)
    return seen


def _settings() -> Settings | None:
    try:
        return load_settings()
    except ConfigError:
        return None  # check_all says why


def _servers(seen: Examination, settings: Settings) -> list[Findings]:
    found = []
    for server in servers(settings):
        try:
            cluster = cluster_checks.look_at(server)
            each = each_of(server, tries=1)
        except RedisError as error:
            found.append(_unanswered(error, server))
            seen.unanswered = True
            continue
        if cluster is not None:
            found.append(judged(_part(server), cluster, cluster_checks.CHECKS))
        for one in each:
            found.append(_server(seen, one, settings))
    return found


def _server(seen: Examination, server: RedisServer, settings: Settings) -> Findings:
    try:
        looked = server_checks.look_at(server, settings)
    except RedisError as error:
        seen.unanswered = True
        return _unanswered(error, server)
    name = server.setting if server in servers(settings) else f"{server.setting}: {server}"
    seen.servers[name] = dict(looked.info)
    return judged(_part(server), looked, server_checks.CHECKS)


def _part(server: RedisServer) -> str:
    return f"{server} ({server.setting})"


def _unanswered(error: RedisError, server: RedisServer) -> Findings:
    return Findings(_part(server), [Finding(Verdict.FAIL, about(error, server), "answers")])


async def _others(seen: Examination, settings: Settings, *, ask_pbx: bool) -> list[Findings]:
    parts = await _work(seen, settings)
    receiver = receiver_checks.SeenReceiver(settings, await reachability_problem(settings))
    parts.append(judged("Receiver", receiver, receiver_checks.CHECKS))
    pbxs = await pbx_checks.look_at_pbxs(settings, ask=ask_pbx)
    if pbxs.pbxs or ask_pbx:
        parts.append(judged("PBX", pbxs, pbx_checks.CHECKS))
    parts.append(judged("This machine", settings, machine_checks.CHECKS))
    return parts


async def _work(seen: Examination, settings: Settings) -> list[Findings]:
    """What only the servers know."""
    part = "Inbox, workers, handlers"
    if seen.unanswered:
        return [_unseen(part, "Redis cannot be used")]
    try:
        async with opened(settings, tries=1) as (inbox, rq):
            seen.status = await status(inbox, rq, settings)
            partitions = inbox.numbering.current
    except RedisError as error:
        sentence = await asyncio.to_thread(fault, error, settings)
        return [Findings(part, [Finding(Verdict.FAIL, sentence, "answers")])]
    except LaterLayout as error:
        return [Findings(part, [Finding(Verdict.FAIL, str(error), "layout")])]
    looked = inbox_checks.SeenInbox(seen.status, settings, partitions)
    parts = [judged("Inbox", looked, inbox_checks.CHECKS)]
    if settings.handlers:
        parts.append(judged("Workers", seen.status, work_checks.WORKERS))
        parts.append(judged("Handlers", seen.status, work_checks.HANDLERS))
    return parts


def _unseen(part: str, why: str) -> Findings:
    return Findings(part, [Finding(Verdict.WARN, f"not examined, because {why}", "examined")])
