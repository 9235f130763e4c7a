"""The options: named, explained, checked in one line, and the same wherever they are given."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import locust
import pytest
from actor_load import scenarios
from actor_load.errors import LoadError
from actor_load.options import DEFAULT_RUN_SECONDS, SHAPES, Options, add_arguments, bounds, sidecar
from actor_load.scenario import NAMES, SCENARIOS
from locust.argument_parser import (
    LocustArgumentParser,
    default_args_dict,
    get_empty_argument_parser,
    setup_parser_arguments,
    ui_extra_args_dict,
)
from locust.env import Environment
from support.serving import free_port

LOAD_TESTS = Path(__file__).parents[1]
FIELDS = list(Options.model_fields)


@pytest.fixture
def parser() -> LocustArgumentParser:
    """Locust's own, with the options; no configuration file and no environment of this machine."""
    parser = get_empty_argument_parser(default_config_files=[])
    setup_parser_arguments(parser)
    add_arguments(parser)
    return parser


@pytest.fixture
def hooked() -> Iterator[None]:
    """As the locustfile has it."""
    locust.events.init_command_line_parser.add_listener(add_arguments)
    yield
    locust.events.init_command_line_parser.remove_listener(add_arguments)


def parsed(parser: LocustArgumentParser, *given: str, **environment: str) -> Options:
    """What the command line and the environment make of the options."""
    return Options.of(Environment(parsed_options=parser.parse_args(list(given), env_vars=environment)))


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


class TestEveryOption:
    @pytest.mark.parametrize("name", FIELDS)
    def test_it_has_a_help_text_that_is_a_sentence_and_says_the_default(
        self, parser: LocustArgumentParser, name: str
    ) -> None:
        action = next(action for action in parser._actions if action.dest == name)
        default = Options.model_fields[name].default

        assert action.help is not None
        text, said = action.help.rsplit(" Default: ", 1)
        assert text[0].isupper()
        assert text.endswith(".")
        assert said == ("none." if default in {None, ""} else f"{default}.")

    @pytest.mark.parametrize("name", FIELDS)
    def test_its_default_survives_the_command_line(self, parser: LocustArgumentParser, name: str) -> None:
        assert getattr(parsed(parser), name) == Options.model_fields[name].default

    def test_none_of_them_is_locusts_own(self) -> None:
        # Locust hands to its workers what is not its own.
        assert not set(FIELDS) & set(default_args_dict())

    def test_all_are_asked_for_in_the_web_ui_with_their_help(self, hooked: None) -> None:
        asked = ui_extra_args_dict([])

        assert set(FIELDS) <= set(asked)
        for name in FIELDS:
            assert asked[name]["help_text"].startswith(Options.model_fields[name].description)
        assert asked["shape"]["choices"] == SHAPES
        assert asked["scenario"]["choices"] == NAMES
        assert asked["actors"]["default_value"] == "10000"

    def test_the_web_ui_shows_what_was_given(self, hooked: None) -> None:
        assert ui_extra_args_dict(["--step-users", "9"])["step_users"]["default_value"] == "9"


GIVEN = [
    ("think_time", "2-4", "2-4"),
    ("long_share", "0.5", 0.5),
    ("actors", "77", 77),
    ("shape", "steps", "steps"),
    ("scenario", "scale", "scale"),
    ("step_seconds", "2.5", 2.5),
    ("max_p95", "300", 300.0),
    ("min_rate", "0", 0.0),
    ("namespace", "another", "another"),
    ("threshold", "turn:p95<300 call:rate>5", "turn:p95<300 call:rate>5"),
    ("verify", "on", "on"),
    ("memory_host", "http://memory:8001", "http://memory:8001"),
    ("active_actors", "10000", 10000),
    ("node_faults", "load-tests-node-faults", "load-tests-node-faults"),
]


class TestWhereTheyAreGiven:
    @pytest.mark.parametrize(("name", "text", "value"), GIVEN)
    def test_the_command_line(self, parser: LocustArgumentParser, name: str, text: str, value: object) -> None:
        assert getattr(parsed(parser, option(name), text), name) == value

    @pytest.mark.parametrize(("name", "text", "value"), GIVEN)
    def test_the_environment(self, parser: LocustArgumentParser, name: str, text: str, value: object) -> None:
        assert getattr(parsed(parser, **{f"LOCUST_{name.upper()}": text}), name) == value

    @pytest.mark.parametrize(("name", "text", "value"), GIVEN)
    def test_the_form_of_the_web_ui(self, name: str, text: str, value: object) -> None:
        # It sends all of them, as text, and what is not set as the empty text.
        form = {
            name: "" if field.default is None else str(field.default) for name, field in Options.model_fields.items()
        }
        assert getattr(Options.parse({**form, name: text, "user_count": "5", "host": "http://x"}), name) == value

    def test_verify_alone_is_on(self, parser: LocustArgumentParser) -> None:
        assert parsed(parser, "--verify", "--actors", "7").verify == "on"

    @pytest.mark.parametrize(
        ("verify", "scenario", "verifies"),
        [
            ("auto", "faults", True),
            ("auto", "scale", False),
            ("auto", "none", False),
            ("on", "none", True),
            ("on", "scale", True),
            ("off", "faults", False),
        ],
    )
    def test_what_clients_were_told_is_checked_in_faults_and_where_it_is_asked_for(
        self, verify: str, scenario: str, verifies: bool
    ) -> None:
        assert Options.parse({"verify": verify, "scenario": scenario}).verifies is verifies

    def test_the_command_line_goes_before_the_environment(self, parser: LocustArgumentParser) -> None:
        assert parsed(parser, "--actors", "1", LOCUST_ACTORS="2").actors == 1

    def test_a_threshold_may_be_given_several_times(self, parser: LocustArgumentParser) -> None:
        options = parsed(parser, "--threshold", "turn:p95<300", "--threshold", "call:rate>5", "--max-p95", "9")
        assert [one.written for one in options.thresholds] == ["--max-p95 9", "turn:p95<300", "call:rate>5"]

    def test_a_run_is_bounded_without_being_told(self, parser: LocustArgumentParser) -> None:
        assert parser.parse_args([], env_vars={}).run_time == DEFAULT_RUN_SECONDS
        assert parser.parse_args(["-t", "1h"], env_vars={}).run_time == 3600

    def test_without_a_command_line_there_are_the_defaults(self) -> None:
        assert Options.of(Environment()) == Options()


WRONG = [
    ("actors", "0"),
    ("actors", "1.5"),
    ("actors", "many"),
    ("actors", ""),
    ("retries", "-1"),
    ("long_share", "1.01"),
    ("long_share", "-0.1"),
    ("write_share", "nan"),
    ("arrival_rate", "0"),
    ("arrival_rate", "101"),
    ("spike_factor", "1"),
    ("spike_factor", "inf"),
    ("step_users", "0"),
    ("step_seconds", "0"),
    ("step_seconds", "inf"),
    ("knee_p95", "-1"),
    ("knee_p95", "inf"),
    ("knee_error_rate", "2"),
    ("max_p95", "0"),
    ("max_p95", "inf"),
    ("max_p99", "fast"),
    ("max_error_rate", "2"),
    ("min_rate", "-1"),
    ("min_rate", "inf"),
    ("threshold", "turn:p95<soon"),
    ("abort_after", "0"),
    ("placement_seconds", "0.1"),
    ("placement_seconds", "inf"),
    ("idle_seconds", "0"),
    ("namespace", ""),
    ("pods", "0"),
    ("pods", "1,,3"),
    ("pods", "three"),
    ("sidecar", "localhost:3500"),
    ("shape", "zigzag"),
    ("scenario", "flood"),
    ("placement", "maybe"),
    ("messages", "0"),
    ("messages", "0-3"),
    ("messages", "1.5"),
    ("messages", "many"),
]


class TestBadValues:
    @pytest.mark.parametrize(("name", "text"), WRONG)
    def test_each_is_one_line_that_names_the_option_and_the_value(self, name: str, text: str) -> None:
        with pytest.raises(LoadError) as raised:
            Options.parse({name: text})

        said = str(raised.value)
        assert said.startswith(f"{option(name)} {text}: ")
        assert "\n" not in said
        assert "pattern" not in said, "that is for programs"

    @pytest.mark.parametrize("name", ["shape", "scenario", "placement"])
    def test_an_unknown_choice_on_the_command_line_is_refused_with_the_choices(
        self, parser: LocustArgumentParser, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        with pytest.raises(SystemExit) as raised:
            parser.parse_args([option(name), "zigzag"], env_vars={})

        said = capsys.readouterr().err
        assert raised.value.code == 2
        assert option(name) in said
        assert "zigzag" in said
        assert Options.model_fields[name].default in said

    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "constant"])
    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_a_scenario_and_a_shape_exclude_each_other(
        self, parser: LocustArgumentParser, scenario: str, shape: str
    ) -> None:
        with pytest.raises(LoadError) as raised:
            parsed(parser, "--scenario", scenario, "--shape", shape)
        assert str(raised.value) == f"--scenario {scenario} decides the load by itself: leave --shape out"

    def test_either_alone_is_well(self, parser: LocustArgumentParser) -> None:
        assert {parsed(parser, "--shape", shape).shape for shape in SHAPES} == set(SHAPES)
        assert {parsed(parser, "--scenario", scenario).scenario for scenario in NAMES} == set(NAMES)

    def test_a_threshold_of_nothing_is_none(self) -> None:
        options = Options.parse({"max_p95": "", "max_p99": "", "max_error_rate": "", "min_rate": ""})
        assert (options.max_p95, options.max_p99, options.max_error_rate, options.min_rate) == (None,) * 4


class TestRanges:
    @pytest.mark.parametrize(
        ("text", "ends"),
        [("3", (3, 3)), ("1-3", (1, 3)), ("0", (0, 0)), ("0.5-1.25", (0.5, 1.25)), ("2-2", (2, 2))],
    )
    def test_a_number_or_two_with_a_dash(self, text: str, ends: tuple[float, float]) -> None:
        assert bounds(Options(think_time=text).think_time) == ends

    @pytest.mark.parametrize(
        "text", ["", "-", "1-", "-1", "3-1", "1-2-3", "a", "1-b", "nan", "inf", "1-inf", "1,2", "1..2"]
    )
    def test_anything_else_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(LoadError, match="must be a number or a range, as 3 or 1-3"):
            Options.parse({"think_time": text})


class TestTheSidecar:
    @pytest.mark.parametrize(
        ("given", "port", "address"),
        [
            ("", "", ""),
            ("", "3501", "http://127.0.0.1:3501"),
            ("http://localhost:3500/", "", "http://localhost:3500"),
            ("http://localhost:3500", "3501", "http://localhost:3500"),
        ],
    )
    def test_is_the_one_named_or_that_of_the_pod(
        self, monkeypatch: pytest.MonkeyPatch, given: str, port: str, address: str
    ) -> None:
        monkeypatch.setenv("DAPR_HTTP_PORT", port)
        assert sidecar(Options(sidecar=given)) == address


class TestLocustItself:
    """Real processes of it."""

    def test_the_locustfile_run_by_itself_shows_all_options(self) -> None:
        # `locust --help` prints before it has read a locustfile.
        shown = subprocess.run(
            [sys.executable, LOAD_TESTS / "locustfile.py"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "COLUMNS": "1000"},
        ).stdout

        for name, field in Options.model_fields.items():
            assert f"{option(name)} " in shown
            assert str(field.description) in shown

    def test_a_wrong_option_is_one_line_and_exit_code_two(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "locust", "-f", LOAD_TESTS / "locustfile.py", "--headless", "--actors", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ended.returncode == 2
        assert [line for line in ended.stderr.splitlines() if "--actors" in line] == [
            "error: --actors 0: Input should be greater than or equal to 1"
        ]
        assert "Traceback" not in ended.stderr

    def test_what_the_master_is_given_reaches_a_worker_that_was_given_nothing(self, tmp_path: Path) -> None:
        locustfile = tmp_path / "locustfile.py"
        locustfile.write_text(LOCUSTFILE_THAT_SHOWS_OPTIONS)
        port = str(free_port())
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--loglevel", "WARNING"]
        environment = {**os.environ, "PYTHONPATH": str(LOAD_TESTS)}
        commands = {
            "master": f"--master --master-bind-host 127.0.0.1 --master-bind-port {port} --headless --expect-workers 1 "
            "-u 1 -t 1 -s 0 --only-summary --step-users 9 --think-time 2-4".split(),
            "worker": ["--worker", "--master-port", port],
        }
        processes = {
            name: subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            for name, arguments in commands.items()
        }
        try:
            outputs = {name: process.communicate(timeout=60)[0] for name, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
                process.wait()

        assert outputs["worker"].splitlines().count("before: 5 1-3") == 1
        assert outputs["worker"].splitlines().count("in the run: 9 2-4") == 1


LOCUSTFILE_THAT_SHOWS_OPTIONS = """
from actor_load.options import Options, add_arguments
from locust import User, constant, events, task


class Nobody(User):
    wait_time = constant(1)

    @task
    def nothing(self):
        pass


def show(when, environment):
    options = Options.of(environment)
    print(f"{when}: {options.step_users} {options.think_time}", flush=True)


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(lambda environment, **_: show("before", environment))
events.test_start.add_listener(lambda environment, **_: show("in the run", environment))
"""


class TestScenarios:
    def test_each_has_a_script(self) -> None:
        assert scenarios.SCRIPTS.keys() == SCENARIOS.keys()

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_its_options_are_there_and_their_help_names_it(self, parser: LocustArgumentParser, name: str) -> None:
        for option in SCENARIOS[name].options:
            action = next(action for action in parser._actions if action.dest == option)
            assert re.search(rf"Heeded by --scenario [\w, ]*\b{name}\b", action.help)

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_the_help_tells_what_it_does(self, parser: LocustArgumentParser, name: str) -> None:
        assert f"{name}: {SCENARIOS[name].text}" in Options.model_fields["scenario"].description


class TestFaults:
    def test_they_are_names_with_commas_between_them(self):
        assert Options().fault_names == []
        assert Options(faults="chat-killed, redis-killed").fault_names == ["chat-killed", "redis-killed"]

    @pytest.mark.parametrize("wrong", ["chaos", "chat-killed,", "chat-killed,Redis"])
    def test_one_that_is_not_known_is_told_with_those_that_are(self, wrong):
        with pytest.raises(LoadError, match=r"--faults .* is none of chat-deleted, chat-killed"):
            Options.parse({"faults": wrong})
