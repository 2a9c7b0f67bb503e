"""Web pages of other origins: what a browser asks before it lets them call, and what it must find on answers."""

import aiohttp
import pytest

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.shared.errors import ConfigError
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import Ring

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PAGE = "https://chat.example.org"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
ALLOWED = "Access-Control-Allow-Origin"


async def served(ring: Ring, start_gateway: StartGateway, **settings: str) -> str:
    gateway = await start_gateway(**settings)
    await ring.until(lambda: not gateway.not_ready())
    return gateway.http_url


@pytest.mark.parametrize("key", ["", "s3cret"])
async def test_any_page_may_call(ring: Ring, start_gateway: StartGateway, key: str) -> None:
    """A browser sends no key with its question."""
    url = await served(ring, start_gateway, **({"api_key": key} if key else {}))
    async with aiohttp.ClientSession(url) as http:
        for path in (CHAT, TEXT, "/v1/models"):
            async with http.options(path, headers={"Origin": PAGE, **ASKED}) as response:
                assert response.status == 204
                assert response.headers[ALLOWED] == "*"
                assert "POST" in response.headers["Access-Control-Allow-Methods"]
                assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
                assert "Access-Control-Allow-Credentials" not in response.headers
        headers = {"Origin": PAGE, **({"Authorization": f"Bearer {key}"} if key else {})}
        for method, path, body, status in (
            ("POST", TEXT, {"prompt": "echo:1"}, 200),
            ("POST", TEXT, {"prompt": "echo:1", "stream": True}, 200),
            ("POST", TEXT, {"prompt": "echo:1", "temperature": 9}, 400),
            ("POST", TEXT, {"prompt": "failmid:internal_error", "stream": True}, 200),
            ("GET", "/v1/models", None, 200),
            ("GET", "/nowhere", None, 404),
            ("PUT", TEXT, {}, 405),
        ):
            async with http.request(method, path, json=body, headers=headers) as response:
                assert (response.status, response.headers[ALLOWED]) == (status, "*")
                assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        if key:
            async with http.get("/v1/models", headers={"Origin": PAGE}) as response:
                assert (response.status, response.headers[ALLOWED]) == (401, "*")


async def test_only_some_pages_may_call(ring: Ring, start_gateway: StartGateway) -> None:
    url = await served(ring, start_gateway, cors_origins=f"{PAGE}/, HTTP://Localhost:3000")
    async with aiohttp.ClientSession(url) as http:
        for origin, status in ((PAGE, 204), ("http://localhost:3000", 204), ("https://evil.example.org", 405)):
            allowed = origin if status == 204 else None
            async with http.options(CHAT, headers={"Origin": origin, **ASKED}) as response:
                assert (response.status, response.headers.get(ALLOWED)) == (status, allowed)
            async with http.get("/v1/models", headers={"Origin": origin}) as response:
                assert (response.status, response.headers.get(ALLOWED)) == (200, allowed)
                assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origins", ["none", ""])
async def test_no_page_may_call(ring: Ring, start_gateway: StartGateway, origins: str) -> None:
    url = await served(ring, start_gateway, cors_origins=origins)
    async with aiohttp.ClientSession(url) as http:
        async with http.options(CHAT, headers={"Origin": PAGE, **ASKED}) as response:
            assert (response.status, response.headers.get(ALLOWED)) == (405, None)
        async with http.get("/v1/models", headers={"Origin": PAGE}) as response:
            assert (response.status, response.headers.get(ALLOWED)) == (200, None)


ORIGINS: list[tuple[str, set[str]]] = [
    ("*", {"*"}),
    ("none", set()),
    (" None ", set()),
    ("", set()),
    (" , ", set()),
    ("https://a.org", {"https://a.org"}),
    ("HTTP://Localhost:3000/ ,null", {"http://localhost:3000", "null"}),
    ("http://[::1]:8000", {"http://[::1]:8000"}),
    ("app://obsidian.md", {"app://obsidian.md"}),
]


@pytest.mark.parametrize(("origins", "allowed"), ORIGINS)
def test_origins(origins: str, allowed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag and the variable say the same by the same word, but for an empty variable, which is none at all."""
    assert GatewaySettings.load(["--cors-origins", origins]).cors_origins == allowed
    monkeypatch.setenv("RADIXMESH_CORS_ORIGINS", origins)
    assert GatewaySettings.load([]).cors_origins == (allowed if origins else {"*"})
    assert GatewaySettings.load(["--cors-origins", "none"]).cors_origins == set()


def test_help_tells_the_word_for_none_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        GatewaySettings.load(["--help"])
    assert "'*' is all, 'none' none. (default: *)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "origins",
    ["a.org", "localhost:3000", "https://a.org/chat", "https://*.a.org", "https://", "none", "none,*", "http://a:x"],
)
def test_what_no_browser_would_call_an_origin_is_refused(origins: str) -> None:
    with pytest.raises(ConfigError, match=r"--cors-origins .*does not read like https://HOST"):
        GatewaySettings.checked({"cors_origins": f"https://b.org,{origins}"})


async def test_who_is_no_page_sees_nothing_of_it(ring: Ring, start_gateway: StartGateway) -> None:
    url = await served(ring, start_gateway)
    async with aiohttp.ClientSession(url) as http, http.get("/v1/models") as response:
        assert not [name for name in response.headers if name.startswith("Access-Control")]
