"""The bare node's parts that need no node: what it checks first, how it is configured, how it finds its processes."""

import ipaddress
import json
import os
import subprocess
import tomllib

import pytest

from cluster import binaries, logs
from cluster.bare import components, images, layout, node, packages, pki, processes
from cluster.errors import CommandError

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


def test_all_addresses_are_of_the_range_for_benchmarks():
    networks = [layout.PODS, layout.SERVICES]
    addresses = [
        getattr(layout, name) for name in dir(layout) if isinstance(getattr(layout, name), ipaddress.IPv4Address)
    ]
    assert len(addresses) >= 2
    assert all(address in layout.RANGE for address in addresses)
    assert all(network.subnet_of(layout.RANGE) for network in networks)
    assert not any(address in network for address in addresses for network in networks)


def test_every_configuration_file_can_be_read():
    files = components.configuration()
    containerd = tomllib.loads(files["containerd.toml"])
    assert containerd["root"].startswith(str(layout.STATE))
    assert files["kubelet.json"]["cgroupRoot"] == f"/{layout.NAME}"
    assert json.loads(json.dumps(files["kube-proxy.json"]))["kind"] == "KubeProxyConfiguration"
    assert tomllib.loads(files[f"certs.d/{layout.REGISTRY}/hosts.toml"])["server"] == f"http://{layout.REGISTRY}"


def test_every_file_that_a_component_reads_is_written():
    written = {components.ETC / name for name in components.configuration()}
    read = {file for component in components.components() for file in component.files}
    assert read - written == {packages.Path("/etc/resolv.conf")}
    assert len({component.name for component in components.components()}) == len(components.components())


def test_a_file_of_the_configuration_is_left_alone_unless_it_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(components, "STATE", tmp_path / "state")
    monkeypatch.setattr(components, "ETC", tmp_path / "state" / "etc")
    monkeypatch.setattr(components, "MOUNT_POINTS", ())
    components.configure()
    kubelet = components.ETC / "kubelet.json"
    proxy = components.ETC / "kube-proxy.json"
    kubelet.write_text("{}")
    os.utime(proxy, (1, 1))
    components.configure()
    assert json.loads(kubelet.read_text())["kind"] == "KubeletConfiguration"
    assert proxy.stat().st_mtime == 1


def test_a_component_starts_anew_when_what_it_reads_changes(tmp_path):
    file = tmp_path / "settings"
    component = processes.Component("some", ("/bin/some", "--flag"), (file,))
    without = component.recipe
    file.write_text("a")
    assert component.recipe != without
    assert component.recipe == processes.Component("some", ("/bin/some", "--flag"), (file,)).recipe
    assert component.recipe != processes.Component("some", ("/bin/some", "--other"), (file,)).recipe


@pytest.fixture
def sleeper(tmp_path):
    """A component that is a process of this test, and starts another program, which inherits its mark."""
    said = tmp_path / "said"
    said.write_text("started\n")  # by the other program: it is a copy of the shell for a moment
    shell = os.path.realpath("/bin/sh")
    environment = {"PATH": os.environ["PATH"], processes._MARK: f"some abc {shell}"}
    process = subprocess.Popen(
        [shell, "-c", f"tail -f {said} & wait"], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"started\n"
    yield process
    processes.kill([pid for pid, mark in processes._marked() if mark.startswith("some ")])
    process.stdout.close()
    process.wait()


def test_a_component_is_found_by_its_mark_and_what_it_started_is_not_taken_for_it(sleeper):
    assert processes.running()["some"] == processes.Process("some", sleeper.pid, "abc")
    marked = [pid for pid, mark in processes._marked() if mark.startswith("some ")]
    assert len(marked) == 2
    assert set(marked) <= set(processes.strays())


def test_a_component_that_has_ended_does_not_run(sleeper):
    component = processes.Component("some", ("/bin/sh",))
    found = processes.running()["some"]
    assert node._problem(component, found) is None
    sleeper.kill()
    sleeper.wait()
    assert node._problem(component, found) == "does not run"


def test_a_component_that_nothing_answers_for_is_not_healthy(sleeper):
    found = processes.running()["some"]
    silent = processes.Component("some", ("/bin/sh",), health="http://127.0.0.1:1/healthz")
    assert "does not answer" in node._problem(silent, found)
    closed = processes.Component("some", ("/bin/sh",), health="unix:/nothing/here.sock")
    assert "does not answer" in node._problem(closed, found)


def test_every_party_gets_a_certificate_of_the_authority_and_is_none_itself(tmp_path):
    pki._make(tmp_path)
    for party in (*pki.SERVERS, *pki.CLIENTS):
        certificate = tmp_path / f"{party.name}.crt"
        verified = subprocess.run(
            ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", certificate],
            capture_output=True,
            text=True,
            check=False,
        )
        assert verified.returncode == 0, verified.stderr
        shown = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-text"], capture_output=True, text=True, check=True
        ).stdout
        assert "CA:FALSE" in shown
        assert ("TLS Web Server Authentication" in shown) == bool(party.server_names)
    admin = json.loads((tmp_path / "admin.conf").read_text())
    assert admin["clusters"][0]["cluster"]["server"] == layout.API_SERVER


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
