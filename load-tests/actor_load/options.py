"""The options of the load tests, beside Locust's own: on the command line, in the environment, and in the web UI."""

import argparse
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from actor_load.errors import LoadError
from actor_load.faults import FAULTS
from actor_load.phases import OF_SCENARIOS, OF_SHAPES
from actor_load.scenario import NAMES, NONE, SCENARIOS, heeding
from actor_load.thresholds import ABORT, Threshold, given, parse

SHAPES: Final = ("constant", "ramp", "spike", "soak", "steps")
SWITCH: Final = ("auto", "on", "off")
DEFAULT_RUN_SECONDS: Final = 300
DEFAULT_USERS: Final = 10
STOP_SECONDS: Final = 40
"""A turn may wait 30 s for the one before it."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _range(text: str) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", text)
    if found is None or float(found[1]) > float(found[2] or found[1]):
        raise ValueError("must be a number or a range, as 3 or 1-3")
    return text


def _counts(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d*)(?:-([1-9]\d*))?", text)
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise ValueError("must be a whole number from 1, or a range of them, as 5 or 3-8")
    return text


def _faults(text: str) -> str:
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if name not in FAULTS:
            raise ValueError(f"{name!r} is none of {', '.join(FAULTS)}")
    return ",".join(names)


def _replicas(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise ValueError("must be numbers of replicas, as 1,3,6,2")
    return text


def _address(text: str) -> str:
    if text and not re.match(r"https?://[^/]", text):
        raise ValueError("must be an address, as http://localhost:3500")
    return text


def _thresholds(text: str) -> str:
    parse(text)
    return text


Range = Annotated[str, AfterValidator(_range)]
Counts = Annotated[str, AfterValidator(_counts)]


def bounds(text: str) -> tuple[float, float]:
    """The two ends of a range: ``"1-3"`` -> ``(1.0, 3.0)``, ``"3"`` -> ``(3.0, 3.0)``."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


class Options(BaseModel):
    """Every option of ours. A field is ``--like-this`` on the command line and ``LOCUST_LIKE_THIS`` in the environment;
    its description is the help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # What is under load.
    namespace: str = Field("daca", min_length=1, description="Namespace of the release under load.")
    deployment: str = Field("chat-service", min_length=1, description="Deployment whose pods host the actors.")
    app_id: str = Field("chat-service", min_length=1, description="Dapr app id of those pods.")
    actor_type: str = Field("UserSessionActor", min_length=1, description="Actor type under load.")
    dapr_namespace: str = Field("dapr-system", min_length=1, description="Namespace of Dapr's control plane.")
    kube_context: str = Field("", description="Context of the kubeconfig; empty: the current one, or the pod's own.")
    sidecar: Annotated[str, AfterValidator(_address)] = Field(
        "",
        description="Dapr sidecar that actor calls go through, as http://localhost:3500. Empty: that of the pod "
        "(DAPR_HTTP_PORT); without one only conversations and arrivals run.",
    )

    # Conversations.
    think_time: Range = Field("1-3", description="Seconds a person takes between two messages, as 2 or 1-3.")
    messages: Counts = Field("3-8", description="Messages of a session, as 5 or 3-8.")
    long_share: Share = Field(0.05, description="Share of the sessions that are long, 0 to 1.")
    long_messages: Count = Field(40, description="Messages of a long session.")
    double_share: Share = Field(0.1, description="Share of messages that are followed by a second one at once, 0 to 1.")
    retries: int = Field(3, ge=0, description="Tries more for a turn that broke, under its Idempotency-Key.")

    # Open arrivals.
    arrival_rate: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="Turns a second of each user of the class Arrivals; latency counts from when a turn was due."
    )
    arrival_users: Count = Field(1000, description="People the arrivals speak for, in turn.")

    # Actor calls.
    actors: Count = Field(10_000, description="Distinct actor ids, shared out between the workers.")
    hot_actors: Count = Field(5, description="Actors that HotActors calls again and again.")
    write_share: Share = Field(0.2, description="Share of the calls of ReadsAndWrites that write, 0 to 1.")

    # Shape and scenario.
    shape: Literal[SHAPES] = Field("constant", description="How the load goes over time: -u users at most, for -t.")  # type: ignore[valid-type]
    scenario: Literal[NAMES] = Field(  # type: ignore[valid-type]
        NONE,
        description="What is done to the cluster meanwhile; a scenario decides the load by itself. "
        + "; ".join(f"{one.name}: {one.text}" for one in SCENARIOS.values())
        + ".",
    )
    spike_factor: Annotated[float, Field(gt=1)] = Field(5.0, description="How many times the usual load a spike is.")
    step_users: Count = Field(5, description="Users that each step of --shape steps adds.")
    step_seconds: Seconds = Field(20.0, description="How long each step holds.")
    knee_p95: Seconds = Field(1000.0, description="Steps stop above this 95th percentile, in ms.")
    knee_error_rate: Share = Field(0.01, description="Steps stop above this share of failed requests.")
    pods: Annotated[str, AfterValidator(_replicas)] = Field(
        "",
        description="Replicas to go through, as 1,3,6,2; empty: 1,3,6,2, of the ring 1,2,3,4,5,6.",
    )
    faults: Annotated[str, AfterValidator(_faults)] = Field(
        "",
        description="What --scenario faults lets fail, as chat-killed,redis-killed; empty: all of "
        f"{', '.join(FAULTS)} that the cluster can have: a follower takes several placements, some take --node-faults.",
    )
    node_faults: str = Field(
        "",
        description="CronJob whose Jobs may kill a container, freeze it, or cut off a pod, from its node; "
        "charts/load-tests has it with nodeFaults.enabled.",
    )
    active_actors: Annotated[int, Field(ge=0)] = Field(
        0, description="Actors that are active before --scenario scale, rolling and faults begin to change anything."
    )
    storm_actors: Count = Field(100_000, description="Actors that are activated.")
    idle_seconds: Seconds = Field(
        300.0, description="Idle time-out that is set for the time of the run; longer than activating all takes."
    )

    # The check after the run.
    verify: Literal["auto", "on", "off"] = Field(
        "auto",
        description="After the run, hold what those who chat were told against what is stored; auto: in the scenario "
        + " or ".join(one.name for one in SCENARIOS.values() if one.verifies)
        + ". Alone it is on.",
    )
    memory_host: Annotated[str, AfterValidator(_address)] = Field(
        "", description="Where agent-memory-service answers, as http://agent-memory-service:8001; for --verify."
    )

    verify_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="How long --verify waits until all that was said is stored as it should be."
    )

    # Thresholds.
    max_p95: Seconds | None = Field(None, description="Fail where the 95th percentile is above this, in ms.")
    max_p99: Seconds | None = Field(None, description="Fail where the 99th percentile is above this, in ms.")
    max_error_rate: Share | None = Field(None, description="Fail where more than this share of the requests failed.")
    min_rate: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Fail where fewer requests a second were answered."
    )

    threshold: Annotated[str, AfterValidator(_thresholds)] = Field(
        "",
        description="Fail where one of these is broken, as 'turn:p95<300, turn@overload:max<2s, call:rate>50'; "
        f"one that ends with {ABORT} ends the run, too. On the command line it may be given several times.",
    )
    abort_after: Seconds = Field(
        10.0, description=f"Seconds on end that a threshold with {ABORT} must be broken before it ends the run."
    )

    # What is seen and left.
    placement: Literal["auto", "on", "off"] = Field(
        "auto", description="The placement view; auto: where a cluster's API answers."
    )
    placement_seconds: Annotated[float, Field(ge=0.5)] = Field(
        2.0, description="Seconds between two looks at placement."
    )
    report: str = Field("", description="Folder for report.html, report.json, report.png and junit.xml.")

    @property
    def pod_counts(self) -> list[int]:
        """``pods`` as numbers; none where it is empty."""
        return [int(count) for count in self.pods.split(",") if count]

    @property
    def fault_names(self) -> list[str]:
        """``faults`` as a list; none where it is empty."""
        return self.faults.split(",") if self.faults else []

    @property
    def verifies(self) -> bool:
        """Whether what those who chat were told is held against what is stored."""
        played = SCENARIOS.get(self.scenario)
        return self.verify == "on" or (self.verify == "auto" and played is not None and played.verifies)

    @property
    def thresholds(self) -> list[Threshold]:
        """Those of ``threshold``, and of the short forms as ``max_p95``."""
        return given(self.model_dump())

    @model_validator(mode="after")
    def _phases_that_come(self) -> Self:
        come, decided = OF_SHAPES[self.shape], f"--shape {self.shape}"
        if self.scenario != NONE:
            come, decided = OF_SCENARIOS, f"--scenario {self.scenario}"
        for one in self.thresholds:
            if one.phase not in {None, *come}:
                raise ValueError(f"--threshold {one.written}: {decided} has the phases {', '.join(come)}")
        return self

    @model_validator(mode="after")
    def _one_conductor(self) -> Self:
        if self.scenario != NONE and self.shape != "constant":
            raise ValueError(f"--scenario {self.scenario} decides the load by itself: leave --shape out")
        return self

    @classmethod
    def of(cls, environment: Environment) -> Self:
        """The options of a run, as its workers have them too.

        Raises:
            LoadError: one is wrong; the message names it.
        """
        return cls.parse(vars(environment.parsed_options) if environment.parsed_options else {})

    @classmethod
    def parse(cls, parsed: Mapping[str, Any]) -> Self:
        """The options among what Locust has parsed, or a form of its web UI has sent.

        Raises:
            LoadError: one is wrong; the message names it.
        """
        given: dict[str, Any] = {name: parsed[name] for name in cls.model_fields if parsed.get(name) is not None}
        optional = {name for name, field in cls.model_fields.items() if field.default is None}
        try:
            return cls(**{name: value for name, value in given.items() if not (name in optional and value == "")})
        except ValidationError as error:
            found = error.errors()[0]
            name = "--" + str(found["loc"][0]).replace("_", "-") if found["loc"] else ""
            said = found["msg"].removeprefix("Value error, ")
            value = f" {found['input']}" if name else ""
            raise LoadError(f"{name}{value}: {said}" if name else said) from error


_CHOICES: Final = {"shape": SHAPES, "scenario": NAMES, "placement": SWITCH, "verify": SWITCH}


class _Joined(argparse.Action):
    """Given several times, it is one list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's own
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def _used_by(name: str) -> str:
    """Of an option's help: which scenarios heed it."""
    names = heeding(name)
    return f" Heeded by --scenario {', '.join(names)}." if names else ""


def add_arguments(parser: LocustArgumentParser) -> None:
    """Adds the options to Locust's, with their help texts and defaults."""
    group = parser.add_argument_group("load tests of the chat and its actors")
    for name, field in Options.model_fields.items():
        choices = _CHOICES.get(name)
        default = "" if field.default is None else field.default
        action = group.add_argument(
            f"--{name.replace('_', '-')}",
            env_var=f"LOCUST_{name.upper()}",
            # Text where a number may be missing; pydantic reads all of it and says what is wrong.
            type=str,
            default=str(default),
            action=_Joined if name == "threshold" else "store",
            choices=choices,
            **({"nargs": "?", "const": "on"} if name == "verify" else {}),
            metavar=None if choices else name.rpartition("_")[2].upper(),
            help=f"{field.description}{_used_by(name)} Default: {default if default != '' else 'none'}.",
        )
        # What Locust's parser sets; a group of its arguments does not. With it the web UI asks for the option, too.
        vars(action).update(include_in_web_ui=True, is_secret=False, is_required=False, is_multiple=False)
    # Nothing runs for ever, and a turn under way is not cut off at the end of a run.
    parser.set_defaults(run_time=str(DEFAULT_RUN_SECONDS), num_users=DEFAULT_USERS, stop_timeout=str(STOP_SECONDS))
    (run_time,) = (action for action in parser._actions if "--run-time" in action.option_strings)  # noqa: SLF001
    run_time.help = f"How long the load goes on, as 90s or 1h30m, without a scenario. Default: {DEFAULT_RUN_SECONDS}s."


def sidecar(options: Options) -> str:
    """The sidecar's address, ``http://host:port``; empty where there is none."""
    port = os.environ.get("DAPR_HTTP_PORT", "")
    return options.sidecar.rstrip("/") or (f"http://127.0.0.1:{port}" if port else "")
