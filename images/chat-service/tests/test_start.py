"""What a process loads before it is ready: a scale-out pays for it with the CPU of people who chat."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(120)  # whole processes start

KNOWN = {
    *("agents", "openai", "griffe"),
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "click", "anyio", "h11", "python_multipart"),
    *("pydantic", "pydantic_core", "pydantic_settings", "dotenv", "annotated_types", "annotated_doc"),
    *("typing_extensions", "typing_inspection"),
    *("dapr", "grpc", "grpc_status", "google", "dateutil", "six"),
    *("aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "frozenlist", "multidict", "propcache", "yarl", "idna"),
    *("httpx2", "httpcore2", "certifi", "sniffio", "brotli", "opentelemetry"),
    *("orjson", "jiter", "pythonjsonlogger"),
    *("chat_service", "daca_common"),
}
"""Everything that is loaded, by what asks for it."""

HEAVY = {"mcp", "mcp_types", "agents.run", "agents.sandbox", "agents.mcp", "agents.realtime", "agents.voice", "numpy"}
"""What openai-agents loads for those who take all of it."""


def run(code: str) -> list[str]:
    """Runs code in a process of its own; the words it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_process_loads_at_its_start_what_it_uses_and_nothing_else():
    code = "import sys; before = set(sys.modules); import chat_service.main; print(*set(sys.modules) - before)"
    loaded = set(run(code))
    assert loaded & HEAVY == set()
    packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert {name for name in packages if not name.startswith("_")} - {"cython_runtime"} <= KNOWN


def test_whoever_asks_for_more_of_openai_agents_gets_all_of_it():
    code = """if True:
        import chat_service.lean_agents, agents.tool, sys
        tool = agents.tool.FunctionTool
        from agents import Agent, FunctionTool, Runner, tracing
        assert FunctionTool is tool is agents.FunctionTool
        assert not hasattr(agents, "no_such_name")
        print(Agent.__module__, Runner.__module__, tracing.__name__, hasattr(agents, "__version__"))
    """
    assert run(code) == ["agents.agent", "agents.run", "agents.tracing", "True"]


def test_where_all_of_openai_agents_is_there_already_it_is_taken_as_it_is():
    code = "import agents; from chat_service import lean_agents; print(lean_agents.FunctionTool is agents.FunctionTool)"
    assert run(code) == ["True"]
