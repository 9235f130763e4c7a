"""What is done to a container's processes, done to one of our own. The packet filter is tried on a cluster."""

import os
import signal
import subprocess

import pytest
from actor_load import node_faults

CONTAINER = "0123456789abcdef"


@pytest.fixture
def victim():
    """A process that can be hurt."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def becomes(process, change):
    """Waits until the process was stopped (``os.WSTOPPED``), or goes on (``os.WCONTINUED``)."""
    return os.waitid(os.P_PID, process.pid, change) is not None


def test_a_containers_processes_are_those_whose_cgroup_names_it(tmp_path):
    for pid, cgroup in ((12, f"0::/../kubepods/pod1/{CONTAINER}"), (7, f"0::/../cri-{CONTAINER}.scope"), (3, "0::/")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(cgroup)
    (tmp_path / "99").mkdir()  # it has ended meanwhile
    (tmp_path / "sys").mkdir()
    assert node_faults.processes(CONTAINER, tmp_path) == [7, 12]
    assert node_faults.processes("another", tmp_path) == []


def test_a_container_that_is_not_there_is_told():
    with pytest.raises(SystemExit, match="no process of container nowhere"):
        node_faults.main(["kill", "nowhere"])


def test_what_is_killed_ends_at_once(victim):
    node_faults.kill([victim.pid])
    assert victim.wait(10) == -signal.SIGKILL
    node_faults.kill([victim.pid])  # it is gone


def test_what_is_frozen_goes_on_when_the_time_is_over(victim, monkeypatch):
    seen = []
    monkeypatch.setattr(node_faults.time, "sleep", lambda seconds: seen.append((seconds, becomes(victim, os.WSTOPPED))))
    node_faults.freeze([victim.pid], 10)
    assert seen == [(10, True)]
    assert becomes(victim, os.WCONTINUED)


def test_what_is_frozen_goes_on_when_the_job_is_told_to_end(victim, monkeypatch):
    def end(_):
        assert becomes(victim, os.WSTOPPED)
        raise SystemExit

    monkeypatch.setattr(node_faults.time, "sleep", end)
    with pytest.raises(SystemExit):
        node_faults.freeze([victim.pid], 10)
    assert becomes(victim, os.WCONTINUED)


def test_a_packet_filter_is_taken_away_however_it_ends(monkeypatch):
    told = []

    def end(_):
        raise SystemExit

    monkeypatch.setattr(node_faults, "_nft", lambda victim, commands: told.append((victim, commands)))
    monkeypatch.setattr(node_faults.time, "sleep", end)
    with pytest.raises(SystemExit):
        node_faults.cut_off(7, 6379, 10)
    (first, begun), (last, ended) = told
    assert first == last == 7
    assert "6379 timeout 10s" in begun, "the kernel forgets it by itself"
    assert ended == f"delete table {node_faults.TABLE}"
