"""What this service takes from openai-agents, without what the package imports for those who take all of it.

``import agents`` loads MCP, sandboxes, tracing exporters and the Runner: half of the CPU a process took to start, and a
scale-out takes that from people who chat (docs/decisions/0003-what-a-turn-costs.md). Here its ``__init__`` waits until
somebody asks for a name that no module of it has; then the package is what it always is.
"""

import sys
from importlib.util import find_spec, module_from_spec

PACKAGE = "agents"


def _prepare() -> None:
    spec = find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}: install openai-agents", name=PACKAGE)
    package, loader = module_from_spec(spec), spec.loader

    def initialize(name: str) -> object:
        if find_spec(f"{PACKAGE}.{name}"):  # the import system sets modules itself
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}", name=name, obj=package)
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = initialize  # https://peps.python.org/pep-0562/
    sys.modules[PACKAGE] = package


if PACKAGE not in sys.modules:
    _prepare()

from agents.tool import FunctionTool, function_tool  # noqa: E402
from agents.tool_context import ToolContext  # noqa: E402

__all__ = ["FunctionTool", "ToolContext", "function_tool"]
