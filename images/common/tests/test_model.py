"""The model's client: made when it is first needed, with a key from the secret store."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from daca_common.dapr import DaprClient
from daca_common.model import ModelClient, ModelKeyMissing, ModelSettings
from support.sidecar import FakeSidecar


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


@pytest.fixture
async def dapr(sidecar: FakeSidecar) -> AsyncIterator[DaprClient]:
    async with DaprClient(sidecar.port) as dapr:
        yield dapr


async def test_a_provider_without_a_key_needs_no_secret(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    model = ModelClient(ModelSettings(model_base_url="http://127.0.0.1:1/v1"), dapr)
    client = await model.get()
    assert str(client.base_url) == "http://127.0.0.1:1/v1/"
    assert sidecar.requests == []
    await model.close()


async def test_the_key_comes_from_the_secret_store(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    sidecar.secrets["mine"] = {"key": "the-key"}
    settings = ModelSettings(model_provider="openai", model_secret_name="mine", model_secret_key="key")
    model = ModelClient(settings, dapr)
    assert (await model.get()).api_key == "the-key"
    assert sidecar.requests == ["GET /v1.0/secrets/secretstore/mine"]
    await model.close()


async def test_a_missing_key_is_told_with_the_mend_and_asked_for_again(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    model = ModelClient(ModelSettings(model_provider="gemini"), dapr)
    for secrets in ({}, {"gemini-api-key": {"other": "k"}}, {"gemini-api-key": {"gemini-api-key": ""}}):
        sidecar.secrets = secrets
        with pytest.raises(ModelKeyMissing, match=r"make a secret 'gemini-api-key'.*k8s-secrets/README.md"):
            await model.get()
    sidecar.secrets = {"gemini-api-key": {"gemini-api-key": "k"}}
    assert (await model.get()).api_key == "k"
    await model.close()


async def test_a_store_that_fails_is_a_missing_key_that_says_why(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"errorCode": "ERR_SECRET_STORE_NOT_FOUND", "message": "no store"}, status=401)

    sidecar.before = fail
    with pytest.raises(ModelKeyMissing, match="no store"):
        await ModelClient(ModelSettings(model_provider="gemini"), dapr).get()


async def test_those_who_ask_at_once_share_one_client(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "k"}
    model = ModelClient(ModelSettings(model_provider="gemini"), dapr)
    clients = await asyncio.gather(*(model.get() for _ in range(10)))
    assert len(set(map(id, clients))) == 1
    assert len(sidecar.requests) == 1
    await model.close()
