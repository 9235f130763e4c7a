"""The bare node's parts that need no node: what it checks first, how nodes are configured, how they find each other."""

import ipaddress
import itertools
import json
import os
import subprocess
import tomllib
from contextlib import nullcontext
from datetime import datetime

import pytest

from cluster import binaries, logs
from cluster.bare import components, images, layout, machine, membership, node, packages, pki, processes
from cluster.bare.layout import FIRST, NODES
from cluster.errors import CommandError

SECOND = NODES[1]
SOME = f"{SECOND.name}/some"
COUNTS = range(1, len(NODES) + 1)

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "vpn0\t000013C6\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
)


def test_without_root_the_only_problem_named_is_that(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (problem,) = packages.preflight()
    assert "needs root" in problem
    assert "run make as root" in problem


def test_another_system_than_linux_is_sent_to_another_cluster(monkeypatch):
    monkeypatch.setattr(packages.platform, "system", lambda: "Darwin")
    (problem,) = packages.preflight()
    assert "Darwin" in problem
    assert "CLUSTER=current" in problem


def test_a_network_that_uses_the_nodes_addresses_is_found():
    assert packages.routed_ranges(ROUTES) == [("vpn0", ipaddress.IPv4Address("198.19.0.0"))]


def test_every_missing_package_is_named_before_it_is_installed(monkeypatch):
    monkeypatch.setattr(
        packages.shutil, "which", lambda command: None if command == "buildah" else f"/usr/bin/{command}"
    )
    monkeypatch.setattr(binaries, "missing", lambda _: [binaries.ETCD])
    plan = packages.plan()
    assert any(line.startswith("install") and "buildah" in line and "openssl" not in line for line in plan)
    assert any(line.startswith("build") and "etcd" in line for line in plan)


@pytest.mark.parametrize(
    ("version", "toolchain", "can_build"),
    [("go1.99.0", "local", True), ("go1.22.1", "local", False), ("go1.22.1", "auto", True), ("go1.20", "auto", False)],
)
def test_go_is_new_enough_or_may_fetch_a_newer_one(monkeypatch, version, toolchain, can_build):
    monkeypatch.setattr(binaries.shutil, "which", lambda _: "/usr/bin/go")
    monkeypatch.setattr(binaries, "run", lambda *_, **__: f"{version}\n{toolchain}\n")
    problem = binaries.go_problem(binaries.NODE)
    assert (problem is None) == can_build
    if problem:
        assert version.removeprefix("go") in problem


def test_a_build_has_another_place_when_its_module_changes(monkeypatch, tmp_path):
    before = binaries.ETCD.folder
    monkeypatch.setattr(binaries, "HERE", tmp_path)
    module = tmp_path / "tools" / "etcd"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module other\n")
    (module / "go.sum").write_text("")
    assert binaries.ETCD.folder.parent == before.parent
    assert binaries.ETCD.folder != before


def test_a_build_takes_no_version_but_those_of_its_module():
    assert "-mod=readonly" in binaries._go_environment()["GOFLAGS"]


def test_all_addresses_are_of_the_range_for_benchmarks_and_no_two_are_the_same():
    networks = [layout.SERVICES, *(one.pods for one in NODES)]
    addresses = [
        getattr(layout, name) for name in dir(layout) if isinstance(getattr(layout, name), ipaddress.IPv4Address)
    ]
    addresses += [one.address for one in NODES]
    assert len(addresses) == len(set(addresses)) >= 4
    assert all(address in layout.RANGE for address in addresses)
    assert all(network.subnet_of(layout.RANGE) for network in networks)
    assert all(one.pods.subnet_of(layout.PODS) for one in NODES)
    assert not any(address in network for address in addresses for network in networks)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(networks, 2))


def test_nodes_have_names_that_an_interface_can_have():
    names = [one.name for one in NODES]
    assert names == ["daca-bare", "daca-bare-2", "daca-bare-3"]
    assert all(len(name) <= 15 for name in names)
    assert not {"lo", "cni0", "internet", "machine"} & set(names)


@pytest.mark.parametrize("count", COUNTS)
def test_the_machine_and_the_nodes_have_a_way_to_each_other_and_to_all_pods(count):
    nodes = [machine.Place(one.name, one.address, one.pods, 1) for one in NODES[:count]]
    places = [machine.Place("machine", layout.MACHINE_ADDRESS, None, 1), *nodes]
    for here in places:
        others = [place for place in places if place != here]
        commands = [command for there in others for command in machine.route(here, there)]
        assert {command[command.index("peer") + 1] for command in commands if "peer" in command} == {
            f"{there.address}/32" for there in others
        }
        assert {command[2:] for command in commands if command[0] == "route"} == {
            (str(there.pods), "via", str(there.address), "dev", there.name) for there in others if there.pods
        }


def test_the_interfaces_of_a_network_are_read_from_the_kernel():
    place = machine.Place("machine", layout.MACHINE_ADDRESS, None, os.getpid())
    assert "lo" in place.interfaces()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert place._replace(pid=ended.pid).interfaces() == set()


@pytest.mark.parametrize("one", NODES, ids=str)
def test_every_configuration_file_can_be_read(one):
    files = components.configuration(one)
    containerd = tomllib.loads(str(files["containerd.toml"]))
    assert containerd["root"].startswith(f"{layout.STATE}/{one.name}/")
    assert files["kubelet.json"]["cgroupRoot"] == f"/{one.name}"
    assert json.loads(json.dumps(files["kube-proxy.json"]))["kind"] == "KubeProxyConfiguration"
    assert tomllib.loads(str(files[f"certs.d/{layout.REGISTRY}/hosts.toml"]))["server"] == f"http://{layout.REGISTRY}"


@pytest.mark.parametrize("one", NODES, ids=str)
def test_every_file_that_a_component_reads_is_written(one):
    written = {one.etc / name for name in components.configuration(one)}
    read = {file for component in components.components(one) for file in component.files}
    assert read - written == {packages.Path("/etc/resolv.conf")}


def test_only_the_first_node_has_what_a_cluster_has_once():
    has = {one: {component.name for component in components.components(one)} for one in NODES}
    of_every_node = {"internet", "containerd", "kubelet", "kube-proxy"}
    once = {"registry", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"}
    assert has[FIRST] == of_every_node | once | {"local-path-provisioner"}
    assert all(has[one] == of_every_node for one in NODES[1:])


def test_no_two_nodes_share_a_component_or_what_it_writes():
    every = [component for one in NODES for component in (processes.init(one), *components.components(one))]
    assert len({component.full_name for component in every}) == len(every)
    assert len({component.log for component in every}) == len(every)
    for name in ("containerd", "kubelet", "kube-proxy"):
        assert len({component.recipe for component in every if component.name == name}) == len(NODES)
    for name in ("kubelet", "containerd"):
        health = [component.health for component in every if component.name == name]
        assert len(set(health)) == (len(NODES) if name == "kubelet" else 1)  # a socket is seen from inside the node


def test_what_others_need_starts_before_them():
    needed = {component.name for one in NODES for component in components.components(one) if component.needed}
    assert {"containerd", "etcd", "kube-apiserver"} <= needed
    assert not {"kubelet", "kube-proxy", "coredns"} & needed
    assert all(component.health or component.outside for component in components.components(FIRST) if component.needed)


def test_a_file_of_the_configuration_is_left_alone_unless_it_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "STATE", tmp_path / "state")
    monkeypatch.setattr(components, "MOUNT_POINTS", ())
    components.configure(SECOND)
    kubelet = SECOND.etc / "kubelet.json"
    proxy = SECOND.etc / "kube-proxy.json"
    kubelet.write_text("{}")
    os.utime(proxy, (1, 1))
    components.configure(SECOND)
    assert json.loads(kubelet.read_text())["kind"] == "KubeletConfiguration"
    assert proxy.stat().st_mtime == 1


def test_a_component_starts_anew_when_what_it_reads_changes(tmp_path):
    file = tmp_path / "settings"
    component = processes.Component(FIRST, "some", ("/bin/some", "--flag"), (file,))
    without = component.recipe
    file.write_text("a")
    assert component.recipe != without
    assert component.recipe == processes.Component(FIRST, "some", ("/bin/some", "--flag"), (file,)).recipe
    assert component.recipe != processes.Component(FIRST, "some", ("/bin/some", "--other"), (file,)).recipe


@pytest.fixture
def sleeper(tmp_path):
    """A component that is a process of this test, and starts another program, which inherits its mark."""
    said = tmp_path / "said"
    said.write_text("started\n")  # by the other program: it is a copy of the shell for a moment
    shell = os.path.realpath("/bin/sh")
    environment = {"PATH": os.environ["PATH"], processes._MARK: f"{SECOND.name}/some abc {shell}"}
    process = subprocess.Popen(
        [shell, "-c", f"tail -f {said} & wait"], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"started\n"
    yield process
    processes.kill([pid for pid, mark in processes._marked() if mark.startswith(SOME)])
    process.stdout.close()
    process.wait()


def test_a_component_is_found_by_its_mark_and_what_it_started_is_not_taken_for_it(sleeper):
    assert processes.running()[SOME] == processes.Process(SOME, sleeper.pid, "abc")
    marked = [pid for pid, mark in processes._marked() if mark.startswith(SOME)]
    assert len(marked) == 2
    assert set(marked) <= set(processes.strays())
    assert set(marked) <= set(processes.strays(SECOND))
    assert not set(marked) & {*processes.strays(FIRST), *processes.strays(NODES[2])}


def test_a_component_that_has_ended_does_not_run(sleeper):
    component = processes.Component(SECOND, "some", ("/bin/sh",))
    found = processes.running()[SOME]
    assert node._problem(component, found) is None
    sleeper.kill()
    sleeper.wait()
    assert node._problem(component, found) == "does not run"


def test_a_component_that_nothing_answers_for_is_not_healthy(sleeper):
    found = processes.running()[SOME]
    silent = processes.Component(SECOND, "some", ("/bin/sh",), health="http://127.0.0.1:1/healthz")
    assert "does not answer" in node._problem(silent, found)
    closed = processes.Component(SECOND, "some", ("/bin/sh",), health="unix:/nothing/here.sock")
    assert "does not answer" in node._problem(closed, found)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The state folder with the keys of a node and, made later, of two others."""
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("keys")
        patch.setattr(layout, "STATE", state)
        patch.setattr(pki, "FOLDER", state / "pki")
        pki.make([FIRST])
        authority = (state / "pki" / "ca.crt").read_bytes()
        pki.make(NODES)
        assert (state / "pki" / "ca.crt").read_bytes() == authority
        yield state


@pytest.mark.parametrize(
    ("party", "one"),
    [*((party, None) for party in pki.PARTIES), *((party, one) for one in NODES for party in pki.node_parties(one))],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_party_gets_a_certificate_of_the_authority_and_is_none_itself(keys, party, one):
    authority = keys / "pki" / "ca.crt"
    certificate = pki.certificate(party.name, one.pki if one else keys / "pki")
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", authority, certificate], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "CA:FALSE" in shown
    assert ("TLS Web Server Authentication" in shown) == bool(party.server_names)
    if one and party.server_names:
        assert f"DNS:{one.name}, IP Address:{one.address}" in shown
    elif one:
        assert f"O = system:nodes, CN = system:node:{one.name}" in shown


@pytest.mark.parametrize("one", [None, *NODES], ids=str)
def test_a_client_finds_the_api_server_by_its_kubeconfig(keys, one):
    file = pki.kubeconfig("kubelet", one.pki) if one else pki.kubeconfig("admin", keys / "pki")
    content = json.loads(file.read_text())
    assert content["clusters"][0]["cluster"]["server"] == layout.API_SERVER
    assert set(content["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_what_was_there_before_a_reboot_is_known_by_its_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "STATE", tmp_path)
    assert layout.present() == (FIRST,)
    FIRST.state.mkdir()
    assert layout.present() == (FIRST,)
    SECOND.state.mkdir()
    assert layout.present() == (FIRST, SECOND)


@pytest.mark.parametrize("count", [0, 4, -1])
def test_a_number_of_nodes_that_cannot_be_is_refused(tmp_path, count):
    with pytest.raises(CommandError, match=f"NODES={count} is not between 1 and 3") as refused:
        node.up(tmp_path / "config", count)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("count", COUNTS)
def test_status_tells_of_every_component_of_every_node(monkeypatch, tmp_path, count):
    monkeypatch.setattr(layout, "STATE", tmp_path)
    monkeypatch.setattr(processes, "running", dict)
    for one in NODES[:count]:
        one.state.mkdir()
    told = node.status()
    assert [component.name for component in told][:3] == ["daca-bare/init", "daca-bare/internet", "daca-bare/registry"]
    assert {component.name.partition("/")[0] for component in told} == {one.name for one in NODES[:count]}
    assert not any(component.running for component in told)


@pytest.fixture
def lives(monkeypatch):
    """What giving nodes their namespaces does, and for the table of processes, by full name, what a test puts there."""
    table, done = {}, []

    def kill(pids):
        done.extend(f"kill {pid}" for pid in pids)
        for name in [name for name, process in table.items() if process.pid in pids]:
            del table[name]

    monkeypatch.setattr(processes, "running", lambda: table)
    monkeypatch.setattr(processes, "kill", kill)
    monkeypatch.setattr(processes, "start_init", lambda one: done.append(f"start {one.name}"))
    monkeypatch.setattr(node, "_end", lambda one: done.append(f"end {one.name}"))
    monkeypatch.setattr(machine, "make_cgroups", lambda _: None)
    monkeypatch.setattr(machine, "connect", lambda: done.append("connect"))
    return table, done


def test_a_node_that_lives_is_left_alone_and_one_that_does_not_starts_from_nothing(lives):
    table, done = lives
    init = processes.init(FIRST)
    table[init.full_name] = processes.Process(init.full_name, 7, init.recipe)
    born = node._live([FIRST, SECOND])
    assert done == ["end daca-bare-2", "start daca-bare-2", "connect"]
    assert set(born) == {SECOND}


def test_a_node_whose_namespaces_are_made_differently_now_gets_new_ones(lives):
    table, done = lives
    init = processes.init(FIRST)
    table[init.full_name] = processes.Process(init.full_name, 7, "another")
    assert set(node._live([FIRST])) == {FIRST}
    assert done == ["end daca-bare", "start daca-bare", "connect"]


def test_a_process_of_a_component_that_there_is_no_more_is_ended(lives):
    table, done = lives
    init = processes.init(FIRST)
    table[init.full_name] = processes.Process(init.full_name, 7, init.recipe)
    table["daca-bare/flannel"] = processes.Process("daca-bare/flannel", 8, "abc")
    assert node._live([FIRST]) == {}
    assert done == ["kill 8", "connect"]


def test_only_the_node_that_is_named_is_killed(monkeypatch):
    ended = []
    monkeypatch.setattr(node, "present", lambda: (FIRST, SECOND))
    monkeypatch.setattr(node, "exclusive", nullcontext)
    monkeypatch.setattr(node, "_end", ended.append)
    node.kill(SECOND.name)
    assert ended == [SECOND]
    with pytest.raises(CommandError, match=f"there is no node daca-3, but {FIRST.name}, {SECOND.name}"):
        node.kill("daca-3")
    assert ended == [SECOND]


def test_a_node_that_has_left_is_forgotten_before_its_folder_goes(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "STATE", tmp_path)
    SECOND.etc.mkdir(parents=True)
    done = []

    def noted(what):
        def note(one):
            assert one.state.exists()
            done.append(what)

        return note

    monkeypatch.setattr(membership, "drain", noted("drained"))
    monkeypatch.setattr(node, "_end", noted("ended"))
    monkeypatch.setattr(membership, "forget", noted("forgotten"))
    node._remove(SECOND)
    assert done == ["drained", "ended", "forgotten"]
    assert not SECOND.state.exists()


def test_a_node_whose_pods_do_not_move_takes_pods_again(monkeypatch):
    said = []

    def kubectl(*arguments):
        said.append(arguments)
        if arguments[0] == "drain":
            raise CommandError("a pod does not go")

    monkeypatch.setattr(membership, "kubectl", kubectl)
    with pytest.raises(CommandError, match="the pods of daca-bare-2 do not move, so it stays: a pod does not go"):
        membership.drain(SECOND)
    assert said[-1] == ("uncordon", "daca-bare-2")


BORN = datetime.fromisoformat("2026-11-23T12:00:00.900+00:00")
BEFORE, AFTER = "2026-11-23T11:59:59Z", "2026-11-23T12:00:00Z"


def kubernetes_node(status="True", heard=AFTER):
    condition = {"type": "Ready", "status": status, "lastHeartbeatTime": heard, "message": "no network"}
    return {"metadata": {"name": SECOND.name}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("listed", "born", "why"),
    [
        ([kubernetes_node()], {}, None),
        ([kubernetes_node(heard=BEFORE)], {}, None),
        ([kubernetes_node(heard=AFTER)], {SECOND: BORN}, None),
        ([kubernetes_node(heard=BEFORE)], {SECOND: BORN}, "its kubelet has not reported"),
        ([kubernetes_node(status="False")], {}, "no network"),
        ([], {}, "its kubelet has not reported"),
    ],
    ids=["ready", "ready for long", "ready again", "was ready before a reboot", "not ready", "unknown"],
)
def test_a_node_is_ready_when_its_kubelet_has_said_so_in_this_life(listed, born, why):
    assert membership._unready([SECOND], listed, born) == ({SECOND: why} if why else {})


def pod(*started, name="chat"):
    statuses = [{"state": {"running": {"startedAt": stamp}} if stamp else {"terminated": {}}} for stamp in started]
    return {"metadata": {"namespace": "daca", "name": name}, "status": {"containerStatuses": statuses}}


@pytest.mark.parametrize(
    ("known", "outdated"),
    [
        (pod(AFTER, AFTER), []),
        (pod(AFTER, BEFORE), ["daca/chat"]),
        (pod(None, AFTER), []),
        (pod(), []),
        ({"metadata": {"namespace": "daca", "name": "waits"}, "status": {}}, []),
    ],
)
def test_a_container_from_before_a_reboot_does_not_count_as_running(known, outdated):
    assert membership._outdated([known], BORN) == outdated


def test_every_base_image_has_a_dockerfile_and_a_name_in_the_nodes_registry():
    made = images.base_images()
    assert {"pause", "busybox", "redis", "python", "dapr"} == {image.dockerfile for image in made}
    for image in made:
        assert (images._DOCKERFILES / image.dockerfile / "Dockerfile").is_file()
        assert image.reference.startswith(f"{layout.REGISTRY}/")


def test_an_image_is_built_again_when_something_in_it_changes(tmp_path):
    file = tmp_path / "program"
    file.write_text("one")
    image = images.BaseImage("registry/pause:1", "pause", {"program": file}, {"ARGUMENT": "one"})
    key = image.key
    file.write_text("two")
    assert image.key != key
    assert images.BaseImage("registry/pause:1", "pause", {"program": file}, {"ARGUMENT": "two"}).key != image.key


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path, capsys):
    log = tmp_path / "build.log"
    with pytest.raises(CommandError, match=r"build failed with exit code 3.*build\.log"):
        logs.run_logged(["sh", "-c", "seq 100; echo broken >&2; exit 3"], log)
    shown = capsys.readouterr().err.splitlines()
    assert "broken" in shown
    assert "100" in shown
    assert "1" not in shown


def test_mounts_below_the_state_are_found(monkeypatch):
    monkeypatch.setattr(node, "STATE", packages.Path("/proc"))
    assert "/proc" in node._mounts()
