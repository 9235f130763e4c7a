"""The ring: the same answers as Dapr's own code, and predictions that hold."""

import subprocess
import time
from pathlib import Path

import pytest
from actor_load.placement.ring import (
    Ring,
    predicted_move,
    predicted_moved,
    predicted_shares,
    predicted_skew,
)

CONTROL_PLANE = Path(__file__).parents[2] / "cluster" / "tools" / "dapr-control-plane"
"""The Go module that pins the Dapr of the cluster."""

GO = """
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/dapr/dapr/pkg/placement/hashing"
)

func main() {
	hosts := map[string]*hashing.Host{}
	for _, address := range os.Args[1:] {
		hosts[address] = hashing.NewHost(address, "app", 0, 0)
	}
	ring := hashing.NewFromExisting(hosts, 100, hashing.NewVirtualNodesCache())
	ids := bufio.NewScanner(os.Stdin)
	for ids.Scan() {
		host, err := ring.Get(ids.Text())
		if err != nil {
			panic(err)
		}
		fmt.Println(host)
	}
}
"""

IDS = [f"user-{number}" for number in range(20_000)]


def addresses(count, first=1):
    """Of pods, as placement names them."""
    return [f"10.244.0.{number}:50002" for number in range(first, first + count)]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_every_id_is_where_daprs_own_code_has_it(tmp_path, count):
    program = tmp_path / "main.go"
    program.write_text(GO)
    ids = [*IDS[:10_000], "jürgen", "a b", "x" * 128, "0", "Δ", ""]
    command = ["go", "-C", CONTROL_PLANE, "run", program, *addresses(count)]
    said = subprocess.run(command, input="\n".join(ids) + "\n", capture_output=True, text=True, check=True)
    ring = Ring(addresses(count))
    assert said.stdout.split() == [ring.host_of(actor_id) for actor_id in ids]


def test_the_order_of_hosts_and_a_host_named_twice_change_nothing():
    ring, other = Ring(addresses(4)), Ring([*reversed(addresses(4)), addresses(1)[0]])
    assert [ring.host_of(actor_id) for actor_id in IDS[:500]] == [other.host_of(actor_id) for actor_id in IDS[:500]]


def test_hosts_of_many_ids_add_up_and_name_hosts_that_have_none():
    counts = Ring(addresses(6)).hosts_of(IDS)
    assert counts.total() == len(IDS)
    assert set(Ring(addresses(6)).hosts_of([])) == set(addresses(6))


def test_the_hosts_of_100_000_ids_are_known_in_a_second_or_so():
    started = time.process_time()
    assert Ring(addresses(6)).hosts_of(f"user-{number}" for number in range(100_000)).total() == 100_000
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_ids_come_as_the_exact_shares_say(count):
    shares = predicted_shares(addresses(count))
    assert sum(shares.values()) == pytest.approx(1)
    counts = Ring(addresses(count)).hosts_of(IDS)
    for address, share in shares.items():
        assert counts[address] / len(IDS) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (addresses(1), addresses(3)),
        (addresses(3), addresses(6)),
        (addresses(6), addresses(2)),
        (addresses(2), addresses(2, first=50)),
        (addresses(4), addresses(4)),
    ],
)
def test_as_many_ids_move_as_the_arcs_say(before, after):
    assert predicted_moved(before, after, IDS) == pytest.approx(predicted_moved(before, after), abs=0.015)


def test_ids_move_to_new_hosts_and_from_old_ones_only():
    small, large = Ring(addresses(3)), Ring(addresses(6))
    moved = [actor_id for actor_id in IDS if small.host_of(actor_id) != large.host_of(actor_id)]
    assert {large.host_of(actor_id) for actor_id in moved} == set(addresses(6)) - set(addresses(3))
    gained = sum(share for address, share in large.shares().items() if address not in small.addresses)
    assert small.moved(large) == pytest.approx(gained)
    assert small.moved(large) == pytest.approx(large.moved(small))
    assert small.moved(Ring(addresses(3))) == 0


def test_the_skew_of_random_rings_is_around_the_ideal_and_the_same_for_a_seed():
    skew = predicted_skew(6, rings=50, seed=3)
    assert skew == predicted_skew(6, rings=50, seed=3)
    assert skew != predicted_skew(6, rings=50, seed=4)
    assert skew.emptiest.least < skew.emptiest.median < 1 < skew.fullest.median < skew.fullest.most
    assert skew.fullest.most < 1.6, "100 virtual nodes a host keep it below that"
    one = predicted_skew(1, rings=5)
    assert (one.fullest.most, one.emptiest.least) == (1, 1)


@pytest.mark.parametrize(("before", "after", "ideal"), [(1, 3, 2 / 3), (3, 6, 1 / 2), (6, 2, 2 / 3), (2, 2, 0)])
def test_a_change_of_size_moves_about_the_part_that_comes_or_goes(before, after, ideal):
    move = predicted_move(before, after, rings=60)
    assert move.moved.least <= ideal <= move.moved.most
    assert move.moved.median == pytest.approx(ideal, abs=0.03)


def test_a_run_with_one_of_dapr_s_rings_lies_within_the_prediction():
    shares = predicted_shares(addresses(6)).values()
    skew = predicted_skew(6)
    assert skew.fullest.least <= max(shares) * 6 <= skew.fullest.most


def test_what_makes_no_ring_is_refused():
    with pytest.raises(ValueError, match="at least one host"):
        Ring([])
    with pytest.raises(ValueError, match="no ids"):
        predicted_moved(addresses(1), addresses(2), [])
    with pytest.raises(ValueError, match="from 1"):
        predicted_skew(0)
