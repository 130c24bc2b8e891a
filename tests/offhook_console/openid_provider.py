"""An OpenID provider: Authlib's own side of it, as a small web application on a real port."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from authlib.oauth2 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from authlib.oidc.core.grants.util import create_half_hash
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.unifiedapi.serving import Server, serve

CLIENT_ID, CLIENT_SECRET = "offhook", "client-secret"


class _Request(OAuth2Request):  # type: ignore[misc]
    def __init__(self, method: str, uri: str, headers: Headers, form: dict[str, str]):
        super().__init__(method, uri, headers=headers)
        self.payload = BasicOAuth2Payload(dict(parse_qsl(urlsplit(uri).query)) | form)
        self._form = form

    @property
    def args(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.uri).query))

    @property
    def form(self) -> dict[str, str]:
        return self._form


class _Client:
    client_id = CLIENT_ID

    def check_redirect_uri(self, uri: str) -> bool:
        return uri.endswith("/sign-in/oidc/callback")

    def check_client_secret(self, secret: str) -> bool:
        return secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, kind: str) -> bool:
        return kind == "code"

    def check_grant_type(self, kind: str) -> bool:
        return kind == "authorization_code"

    def get_allowed_scope(self, scope: str) -> str:
        return scope


class _Code(SimpleNamespace):
    def get_redirect_uri(self) -> Any:
        return self.redirect_uri

    def get_scope(self) -> Any:
        return self.scope


@dataclass
class Provider:
    """The provider.

    Attributes:
        claims: what it says of the person who signs in.
        twist: changes the claims of an ID token, to make it a wrong one.
        key: signs; `published` is what it publishes.
        authorized: the parameters of the requests to authorize.
        issuer: as its document says.
    """

    claims: dict[str, Any]
    twist: Callable[[dict[str, Any]], object] = lambda claims: None
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    authorized: list[dict[str, str]] = field(default_factory=list)
    issuer: str = ""
    url: str = ""
    codes: dict[str, _Code] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.published = self.key

    def id_token(self, nonce: str | None, access_token: str) -> str:
        now = int(time.time())
        at_hash = create_half_hash(access_token, "RS256")
        claims = {"iss": self.issuer, "sub": "1", "aud": CLIENT_ID, "iat": now, "exp": now + 60}
        claims |= {"nonce": nonce, "at_hash": at_hash.decode()} | self.claims
        self.twist(claims)
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key, ["RS256"])


@contextmanager
def provider(claims: dict[str, Any]) -> Iterator[Provider]:
    """Run a provider at which everyone is signed in, with these claims."""
    made, server = Provider(claims), Server()
    server.app = application(made)
    with serve(server) as url:
        made.url = made.issuer = url
        yield made


def application(made: Provider) -> Starlette:
    class Codes(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            made.codes[code] = _Code(
                redirect_uri=request.payload.redirect_uri,
                scope=request.scope,
                nonce=data.get("nonce"),
                code_challenge=data.get("code_challenge"),
                code_challenge_method=data.get("code_challenge_method"),
            )

        def query_authorization_code(self, code: str, client: Any) -> Any:
            return made.codes.get(code)

        def delete_authorization_code(self, code: Any) -> None:
            made.codes = {name: each for name, each in made.codes.items() if each is not code}

        def authenticate_user(self, code: Any) -> Any:
            return SimpleNamespace(get_user_id=lambda: "1")

    class IdTokens(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(each.nonce == nonce for each in made.codes.values())

        def encode_id_token(self, token: Any, request: Any) -> str:
            return made.id_token(request.authorization_code.nonce, token["access_token"])

    class Authorizing(AuthorizationServer):  # type: ignore[misc]
        def query_client(self, client_id: str) -> Any:
            return _Client() if client_id == CLIENT_ID else None

        def save_token(self, token: Any, request: Any) -> None:
            """It is not used again."""

        def send_signal(self, *args: Any, **kwargs: Any) -> None:
            """Nothing listens."""

        def create_oauth2_request(self, request: _Request) -> _Request:
            return request

        def handle_response(self, status: int, body: Any, headers: Any) -> Response:
            if isinstance(body, dict):
                return JSONResponse(body, status, dict(headers))
            return Response(body, status, dict(headers))

    authorizing = Authorizing()
    authorizing.register_token_generator(
        "default", BearerTokenGenerator(lambda *args, **kwargs: f"access-{time.time()}")
    )
    authorizing.register_grant(Codes, [CodeChallenge(required=True), IdTokens(require_nonce=True)])

    async def read(request: Request) -> _Request:
        form = {name: str(value) for name, value in (await request.form()).items()}
        return _Request(request.method, str(request.url), request.headers, form)

    async def authorize(request: Request) -> Response:
        made.authorized.append(dict(request.query_params))
        user = SimpleNamespace(get_user_id=lambda: "1")
        asked = await read(request)
        grant = authorizing.get_consent_grant(asked, user)
        answer: Response = authorizing.create_authorization_response(asked, user, grant)
        return answer

    async def token(request: Request) -> Response:
        answer: Response = authorizing.create_token_response(await read(request))
        return answer

    async def document(request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": made.issuer,
                "authorization_endpoint": f"{made.url}/authorize",
                "token_endpoint": f"{made.url}/token",
                "jwks_uri": f"{made.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            }
        )

    async def keys(request: Request) -> Response:
        return JSONResponse({"keys": [made.published.as_dict(private=False)]})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", document),
            Route("/authorize", authorize),
            Route("/token", token, methods=["POST"]),
            Route("/keys", keys),
        ]
    )
