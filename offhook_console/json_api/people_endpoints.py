"""The endpoints about users and wall links."""

from starlette.requests import Request
from starlette.responses import Response

from offhook_console.directory import users_for, walls_for
from offhook_console.json_api import shapes
from offhook_console.json_api.bodies import answer, encode, read_body
from offhook_console.json_api.openapi_document import ApiEndpoint
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right
from offhook_console.repeats import OneTimeAnswer
from offhook_console.wall_actions import made_wall, revoked_wall

_BASE = "/api/v1"


async def list_users(request: Request, person: Person) -> Response:
    return answer(shapes.UserList(await users_for(parts_of(request), person)))


async def list_walls(request: Request, person: Person) -> Response:
    found = await walls_for(parts_of(request), person)
    walls = [shapes.TenantsWallLink(tenant=tenant, link=link) for tenant, link in found]
    return answer(shapes.WallList(walls))


async def make_wall(request: Request, person: Person) -> Response:
    wanted = await read_body(request, shapes.WallRequest)
    tenant = person.tenant if wanted.tenant is None else wanted.tenant
    link, url = await made_wall(request, person, wanted.name, tenant)
    made, later = (shapes.MadeWallLink(link=link, url=each) for each in (url, None))
    return OneTimeAnswer(encode(made), encode(later), 201)


async def revoke_wall(request: Request, person: Person) -> Response:
    tenant = request.query_params.get("tenant", person.tenant)
    await revoked_wall(request, person, request.path_params["id"], tenant)
    return Response(status_code=204)


PEOPLE_ENDPOINTS = (
    ApiEndpoint("GET", f"{_BASE}/users", list_users, Right.PEOPLE, "List the users.",
                shapes.UserList),
    ApiEndpoint("GET", f"{_BASE}/walls", list_walls, Right.PEOPLE, "List the wall links.",
                shapes.WallList),
    ApiEndpoint("POST", f"{_BASE}/walls", make_wall, Right.PEOPLE, "Make a wall link.",
                shapes.MadeWallLink, body=shapes.WallRequest, status=201),
    ApiEndpoint("DELETE", f"{_BASE}/walls/{{id}}", revoke_wall, Right.PEOPLE,
                "Revoke a wall link; its screens go dark.", None, query=shapes.WallQuery,
                status=204),
)  # fmt: skip
