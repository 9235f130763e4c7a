"""What only the sidecar may call."""

import httpx2
import pytest
from daca_common.app_token import SidecarOnly
from fastapi import FastAPI


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/all", 401),
        ("GET", "/all", 401),
        ("POST", "/some", 401),
        ("GET", "/some", 404),
        ("POST", "/some/more", 404),
        ("PUT", "/below/x", 401),
        ("GET", "/other", 404),
    ],
)
async def test_a_path_is_guarded_for_all_methods_or_for_the_one_it_names(method: str, path: str, status: int) -> None:
    app = SidecarOnly(FastAPI(), "right", ("/all", "POST /some", "/below/"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.request(method, path)).status_code == status
        assert (await client.request(method, path, headers={"dapr-api-token": "right"})).status_code == 404
