"""Settings: a wrong one stops the process with a line that names it."""

import pytest
from daca_common.model import ModelSettings
from daca_common.settings import DaprSettings, ServiceSettings, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "LOG_LEVEL", "MODEL_PROVIDER", "MODEL_NAME", "MODEL_BASE_URL", "DAPR_HTTP_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.setenv("DAPR_HTTP_PORT", "3511")
    monkeypatch.setenv("SOMETHING_ELSE", "is not ours")
    settings = load(DaprSettings)
    assert (settings.port, settings.dapr_http_port, settings.log_level) == (8123, 3511, "INFO")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "0"), ("PORT", "web"), ("LOG_LEVEL", "loud"), ("SHUTDOWN_GRACE_SECONDS", "-1")],
)
def test_a_wrong_value_ends_the_process_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        load(ServiceSettings)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"{name}: ")


@pytest.mark.parametrize("token", ["secret\n", " secret", "\ufeffsecret", "sécret", ""])
def test_a_token_that_no_header_takes_is_named_and_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    monkeypatch.setenv("APP_API_TOKEN", token)
    with pytest.raises(SystemExit):
        load(DaprSettings)
    told = capsys.readouterr().err
    assert told.startswith("APP_API_TOKEN: ")
    assert "cret" not in told


def test_every_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SystemExit):
        load(ServiceSettings)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["PORT", "LOG_LEVEL"]


def test_a_provider_has_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PROVIDER", "gemini")
    settings = load(ModelSettings)
    assert settings.model.startswith("gemini-")
    assert settings.base_url.startswith("https://generativelanguage.googleapis.com/")


def test_name_and_url_override_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "mine")
    monkeypatch.setenv("MODEL_BASE_URL", "http://127.0.0.1:1/v1")
    settings = load(ModelSettings)
    assert (settings.model, settings.base_url) == ("mine", "http://127.0.0.1:1/v1")


def test_a_provider_without_a_default_model_wants_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_PROVIDER", "vllm")
    with pytest.raises(SystemExit):
        load(ModelSettings)
    assert "MODEL_NAME must be set" in capsys.readouterr().err
