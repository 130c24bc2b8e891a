"""Making and revoking wall links. For the pages and the API."""

from starlette.requests import Request

from offhook.errors import ConfigError
from offhook.operations.audit import Change, note_change
from offhook.operations.wall_links import WallLink, make_wall_link, revoke_wall_link
from offhook_console.directory import check_tenant
from offhook_console.languages import ENGLISH, gettext, spoken
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError


async def made_wall(
    request: Request, person: Person, name: str, tenant: str
) -> tuple[WallLink, str]:
    """Make a wall link. Return it, and its address.

    Raises:
        ConsoleError: the name cannot be used, or the tenant is not the person's.
    """
    parts = parts_of(request)
    check_tenant(parts, person, tenant)
    redis = parts.inbox.redis
    try:
        link, secret = await make_wall_link(redis, name, person.name, tenant)
    except ConfigError as error:
        raise ConsoleError(409, gettext("No link was made: {why}.", why=error)) from error
    made = {"name": link.name, "id": link.id}
    await note_change(redis, person.name, Change.WALL_LINK_MADE, made)
    origins = parts.settings.console.origins
    base = origins[0] if origins else f"{request.url.scheme}://{request.url.netloc}"
    # A screen has no person to choose a language.
    said = "" if spoken() == ENGLISH else f"?lang={spoken()}"
    return link, f"{base}/wall/{secret}{said}"


async def revoked_wall(request: Request, person: Person, id_: str, tenant: str) -> None:
    """Revoke a wall link.

    Raises:
        ConsoleError: there is no such link that is the person's to revoke.
    """
    parts = parts_of(request)
    check_tenant(parts, person, tenant)
    link = await revoke_wall_link(parts.inbox.redis, id_, tenant)
    if link is None:
        problem = gettext("There is no such wall link; it may have been revoked before.")
        raise ConsoleError(404, problem)
    await parts.walls.look()  # screens of this process go dark now, of others within a second
    revoked = {"name": link.name, "id": link.id}
    await note_change(parts.inbox.redis, person.name, Change.WALL_LINK_REVOKED, revoked)
