"""What the pages say that a program can check: links, commands, values, providers."""

import ast
import re
import subprocess
from typing import get_args

import pytest
import yaml
from actor_load.scenario import NAMES, SCENARIOS
from daca_common.model import PROVIDERS, ModelSettings
from daca_common.problem_types import PREFIX, PROBLEM_TYPES, page

from cluster.local import secretfile
from cluster.versions import ROOT

CHART = ROOT / "charts" / "daca"
LISTED = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard", "*.md"],
    capture_output=True,
    text=True,
    check=True,
)
PAGES = sorted(ROOT / name for name in LISTED.stdout.split("\0") if name)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9_-]+):", MAKEFILE, re.MULTILINE))
SETTINGS = set(re.findall(r"^([A-Z_]+) \??=", MAKEFILE, re.MULTILINE)) | {"USER"}

WITH_KEY = {name for name, provider in PROVIDERS.items() if provider.needs_key}

FENCED = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILES = (".conf", ".env", ".ini", ".io", ".json", ".md", ".py", ".rdb", ".sh", ".txt", ".yaml")
"""How what looks like the path of a value ends where it is the name of a file or a domain."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text())


def code(page):
    """The pieces of code of a page: blocks, and what stands between backticks."""
    return [block for _, _, block in FENCED.findall(page.read_text())] + SPAN.findall(prose(page))


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        text = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.append(f"{slug}-{count}" if (count := found.count(slug)) else slug)
    return found


def values():
    """The chart's values."""
    return yaml.safe_load((CHART / "values.yaml").read_text())


def exists(tree, path):
    """Whether values have a key; what is below an empty object is the user's."""
    for name in path.split("."):
        if tree == {}:
            return True
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "docs/tutorial.md"} <= {str(page.relative_to(ROOT)) for page in PAGES}


@each_page
def test_every_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


@each_page
def test_every_make_command_exists(page):
    wrong = []
    for piece in code(page):
        for target, settings in re.findall(r"(?:^|[\s;&|(])make ([a-z][a-z0-9_-]*)((?: [A-Z_]+=\S*)*)", piece):
            named = set(re.findall(r"([A-Z_]+)=", settings))
            if target not in TARGETS or not named <= SETTINGS:
                wrong.append(f"make {target}{settings}")
    assert wrong == []


@each_page
def test_every_value_exists_in_the_chart(page):
    tree = values()
    named = set()
    for piece in code(page):
        whole = re.fullmatch(r"([a-zA-Z]+(?:\.[a-zA-Z]+)+)(?:[=:].*)?", piece)
        named |= {whole[1]} if whole and not whole[1].endswith(FILES) else set()
        if "dapr/dapr" not in piece:  # an install of Dapr's own chart has values of its own
            for pairs in re.findall(r"--set(?:-string|-json)?[ =](\S+)", piece):
                named |= {pair.partition("=")[0] for pair in pairs.split(",")}
    ours = {path for path in named if path.partition(".")[0] in tree.keys() - {"global"}}
    assert {path for path in ours if not exists(tree, path)} == set()


class TestScenarios:
    PAGE = (ROOT / "docs" / "load-testing.md").read_text()

    def rows(self):
        """Name -> the last column of its row."""
        table = self.PAGE.partition("\n## Scenarios\n")[2].partition("\n## ")[0]
        return dict(re.findall(r"^\| `([a-z]+)` \|.*\|([^|]*)\|$", table, re.MULTILINE))

    def test_all_are_told_and_no_other(self):
        assert self.rows().keys() == SCENARIOS.keys()

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_each_is_told_with_its_options(self, name):
        told = {option.replace("-", "_") for option in re.findall(r"`--([a-z0-9-]+)", self.rows()[name])}
        assert told == set(SCENARIOS[name].options)

    def test_make_load_takes_those_that_are_told(self):
        (told,) = re.findall(
            r"^\| `SCENARIO=` \|([^|]*)\|", (ROOT / "docs" / "load-testing.md").read_text(), re.MULTILINE
        )
        assert set(re.findall(r"`([a-z]+)`", told)) == set(NAMES)


def _status(kind):
    return PROBLEM_TYPES[kind.removeprefix(PREFIX)].status


class TestProblems:
    """A type of problem stands in the catalogue, in the page that is made of it, and where it is raised."""

    def test_the_page_is_the_catalogue(self):
        assert (ROOT / "docs" / "problems.md").read_text() == page(), (
            "make it anew: .venv/bin/python -m daca_common.problem_types > docs/problems.md"
        )
        assert set(PROBLEM_TYPES) <= set(anchors(ROOT / "docs" / "problems.md"))

    def test_the_services_raise_what_is_in_the_catalogue_and_nothing_else(self):
        raised = set()
        for path in (ROOT / "images").glob("*/src/**/*.py"):
            raised |= set(re.findall(r'"/problems/([a-z-]+)"', path.read_text()))
        assert raised == set(PROBLEM_TYPES)

    def test_each_is_raised_under_its_status(self):
        wrong = []
        for path in (ROOT / "images").glob("*/src/**/*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("Problem"):
                    continue
                kind = next((word.value for word in call.keywords if word.arg == "kind"), None)
                status = call.args[0]
                if not isinstance(status, ast.Constant):
                    continue  # a framework's, for which there is no type of ours
                if kind is None:
                    wrong.append(f"{path.name}:{call.lineno}: without a type")
                elif isinstance(kind, ast.Constant) and _status(kind.value) != status.value:
                    wrong.append(f"{path.name}:{call.lineno}: {kind.value!r} is not {status.value!r}")
        assert wrong == []

    def test_the_pages_name_no_other(self):
        named = {name for each in PAGES for piece in code(each) for name in re.findall(r"/problems/([a-z-]+)", piece)}
        assert named <= set(PROBLEM_TYPES)


class TestProviders:
    """A model provider stands in several places."""

    def test_settings_and_schema_take_the_same(self):
        schema = yaml.safe_load((CHART / "values.schema.yaml").read_text())
        assert set(get_args(ModelSettings.model_fields["model_provider"].annotation)) == set(PROVIDERS)
        assert set(schema["properties"]["model"]["properties"]["provider"]["enum"]) == set(PROVIDERS)

    def test_the_notes_of_an_installation_name_the_secret_of_those_with_a_key(self):
        notes = (CHART / "templates" / "NOTES.txt").read_text()
        (listed,) = re.findall(r"has \.Values\.model\.provider \(list ([^)]*)\)", notes)
        assert set(re.findall(r'"(\w+)"', listed)) == WITH_KEY

    def test_a_run_without_kubernetes_asks_for_the_key_of_those_that_want_one(self):
        assert set(secretfile.KEYED) == WITH_KEY

    @pytest.mark.parametrize("name", PROVIDERS)
    def test_the_docs_have_a_row_of_each(self, name):
        (row,) = re.findall(
            rf"^\| `{name}` \|(.*)\|(.*)\|$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE
        )
        key, asks_for = (cell.strip() for cell in row)
        assert (key != "none") == PROVIDERS[name].needs_key
        if name != "offline":
            assert (PROVIDERS[name].model or "`model.name`") in asks_for
