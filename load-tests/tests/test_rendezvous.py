"""Rendezvous: the owners that Dapr publishes, those that XXH64's specification gives, and shares that come so."""

from collections import Counter

import pytest
from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring
from actor_load.placement.rule import rule

IDS = [f"user-{number}" for number in range(20_000)]

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def addresses(count, first=1):
    """Of pods, as their sidecars report them."""
    return [f"10.244.0.{number}:50002" for number in range(first, first + count)]


def rotated(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & MASK


def mixed(lane, word):
    return rotated((lane + word * P2) & MASK, 31) * P1 & MASK


def xxh64(data):
    """XXH64 with seed 0, step by step after its specification (xxHash/doc/xxhash_spec.md)."""
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) // 8 * 8, 8)]
    stripes = len(data) // 32
    if stripes:
        lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        for at, word in enumerate(words[: 4 * stripes]):
            lanes[at % 4] = mixed(lanes[at % 4], word)
        found = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            found = ((found ^ mixed(0, lane)) * P1 + P4) & MASK
    else:
        found = P5
    found = (found + len(data)) & MASK
    for word in words[4 * stripes :]:
        found = (rotated(found ^ mixed(0, word), 27) * P1 + P4) & MASK
    rest = data[len(data) // 8 * 8 :]
    if len(rest) >= 4:
        found = (rotated(found ^ (int.from_bytes(rest[:4], "little") * P1 & MASK), 23) * P2 + P3) & MASK
        rest = rest[4:]
    for byte in rest:
        found = rotated(found ^ (byte * P5 & MASK), 11) * P1 & MASK
    for shift, prime in ((33, P2), (29, P3), (32, 1)):
        found = (found ^ (found >> shift)) * prime & MASK
    return found


def owner(hosts, actor_id):
    """By the published rule: the highest XXH64 of ``<address>||<id>``, of equals the address that sorts first."""
    return min(hosts, key=lambda address: (-xxh64(f"{address}||{actor_id}".encode()), address))


def test_the_hash_of_these_tests_is_the_one_that_dapr_pins():
    """The scores that Dapr's own contract test has (pkg/actors/hashing/rendezvous/contract_test.go, 1.19)."""
    scores = [xxh64(f"10.0.0.{number}:50002||actor-1".encode()) for number in (1, 2, 3)]
    assert scores == [11841101866786924059, 14141808514106082977, 1347952300613944576]
    assert xxh64(b"") == 0xEF46DB3751D8E999  # as xxHash's specification has it


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_every_id_is_where_the_published_rule_has_it(count):
    hosts = addresses(count)
    # A key is 20 bytes and the id: these end in every branch of the hash, below one stripe of 32 bytes and above.
    ids = [*IDS[:300], *("x" * length for length in range(1, 129)), "jürgen", "a b", "a||b", "Δ", ""]
    found = Rendezvous(hosts)
    assert [found.host_of(actor_id) for actor_id in ids] == [owner(hosts, actor_id) for actor_id in ids]


@pytest.mark.parametrize(
    ("actor_id", "last"),
    [
        *(("actor-1", 2), ("actor-2", 3), ("actor-3", 1), ("actor-4", 1), ("actor-5", 3)),
        *(("0", 2), ("", 2), ("ολυ-unicode-κλειδί", 1), ("myactor||weird", 1)),
    ],
)
def test_an_id_belongs_to_the_host_that_daprs_contract_names(actor_id, last):
    hosts = [f"10.0.0.{number}:50002" for number in (3, 1, 2)]
    assert Rendezvous(hosts).host_of(actor_id) == f"10.0.0.{last}:50002"


def test_of_equal_scores_the_address_that_sorts_first_wins(monkeypatch):
    monkeypatch.setattr("actor_load.placement.rendezvous.xxh64_intdigest", lambda _: 7)
    assert Rendezvous(["10.0.0.2:50002", "10.0.0.10:50002"]).host_of("alice") == "10.0.0.10:50002"


def test_the_order_of_hosts_and_a_host_named_twice_change_nothing():
    one, other = Rendezvous(addresses(4)), Rendezvous([*reversed(addresses(4)), addresses(1)[0]])
    assert [one.host_of(actor_id) for actor_id in IDS[:500]] == [other.host_of(actor_id) for actor_id in IDS[:500]]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_ids_come_as_the_shares_say(count):
    found = Rendezvous(addresses(count))
    shares = found.shares()
    assert sum(shares.values()) == pytest.approx(1)
    counts = Counter(map(found.host_of, IDS))
    for address, share in shares.items():
        assert counts[address] / len(IDS) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (addresses(1), addresses(3), 2 / 3),
        (addresses(3), addresses(6), 1 / 2),
        (addresses(6), addresses(2), 2 / 3),
        (addresses(3), addresses(3, first=2), 1 / 2),
        (addresses(2), addresses(2, first=50), 1),
        (addresses(4), addresses(4), 0),
    ],
)
def test_as_many_ids_move_as_is_predicted(before, after, moved):
    old, new = Rendezvous(before), Rendezvous(after)
    assert old.moved(new) == pytest.approx(moved)
    counted = sum(old.host_of(actor_id) != new.host_of(actor_id) for actor_id in IDS)
    assert counted / len(IDS) == pytest.approx(moved, abs=0.015)


def test_no_host_is_refused():
    with pytest.raises(ValueError, match="at least one host"):
        Rendezvous([])


def test_the_part_of_dapr_that_places_decides_the_rule():
    ring, rendezvous = rule("placement", addresses(3)), rule("scheduler", addresses(3))
    assert (type(ring), type(rendezvous)) == (Ring, Rendezvous)
    assert {ring.host_of(actor_id) == rendezvous.host_of(actor_id) for actor_id in IDS[:200]} == {True, False}
