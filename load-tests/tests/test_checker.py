"""The checker finds what is wrong, and only that: planted violations, and a simulated system without and with them."""

from dataclasses import replace

import pytest
from actor_load.checker import pauses, rules
from actor_load.checker.seen import State, Stored
from actor_load.checker.told import Activation, Notes, Reply, Told, Try, Turn
from hypothesis import assume, given
from hypothesis import strategies as st

from .histories import ANOTHER, FATES, System, entries

PLANTED = {}
"""What is wrong, as a sentence -> the rule that it breaks, and what plants it: ``plant(case, pick)``, where ``pick``
takes one of several."""


def planted(sentence, rule):
    def note(plant):
        PLANTED[sentence] = rule, plant
        return plant

    return note


class Nothing(Exception):
    """There is nothing in this case that could be spoilt so."""


def one(pick, found):
    found = list(found)
    if not found:
        raise Nothing
    return pick(found)


@planted("an answered turn is lost", rules.KEPT)
def lost(case, pick):
    case.take_out(one(pick, case.of("answered")))


@planted("a turn of unknown outcome is committed and never reaches the transcript", rules.KEPT)
def committed_and_lost(case, pick):
    turn = one(pick, (turn for turn in case.of("unknown") if not case.stored(turn)))
    case.seen["ann"].states[turn.turn_id] = State("committed", "a reply", turn.session_id, 99)


@planted("an answered turn is stored twice", rules.ONCE)
def doubled(case, pick):
    turn = one(pick, case.of("answered"))
    pair, at = case.take_out(turn)
    case.transcript(turn)[at:at] = [*pair, *pair]


@planted("an answered turn is committed twice", rules.ONCE)
def committed_twice(case, pick):
    turn = one(pick, case.of("answered"))
    case.transcript(turn).extend(entries("ann", replace(case.stored(turn), sequence=99)))


@planted("a turn of unknown outcome is committed twice", rules.ONCE)
def unknown_twice(case, pick):
    turn = one(pick, (turn for turn in case.of("unknown") if case.stored(turn)))
    case.transcript(turn).extend(entries("ann", replace(case.stored(turn), sequence=99)))


@planted("the transcript has two turns in the wrong order", rules.ORDER)
def wrong_order(case, pick):
    session = one(pick, (each for each in case.seen["ann"].transcripts.values() if len(each) >= 4))
    session[0:4] = [*session[2:4], *session[0:2]]


@planted("a turn is committed before one that was answered when it was sent", rules.ORDER)
def overtaken(case, pick):
    turns = case.of("answered")
    first, second = one(
        pick, ((a, b) for a in turns for b in turns if a.ended < b.sent and a.session_id == b.session_id)
    )
    numbers = first.reply.sequence, second.reply.sequence
    case.retell(first, sequence=numbers[1])
    case.retell(second, sequence=numbers[0])
    pairs = {first.turn_id: numbers[1], second.turn_id: numbers[0]}
    session = [replace(entry, sequence=pairs.get(entry.turn_id, entry.sequence)) for entry in case.transcript(first)]
    case.seen["ann"].transcripts[first.session_id] = sorted(session, key=lambda entry: entry.sequence)


@planted("a turn is stored with another reply than was told", rules.SAME)
def another_reply(case, pick):
    turn = one(pick, case.of("answered"))
    (said, replied), at = case.take_out(turn)
    case.transcript(turn)[at:at] = [said, replace(replied, content=ANOTHER)]


@planted("a turn is stored with another message than was sent", rules.SAME)
def another_message(case, pick):
    turn = one(pick, (turn for turn in case.of("answered", "unknown") if case.stored(turn)))
    (said, replied), at = case.take_out(turn)
    case.transcript(turn)[at:at] = [replace(said, content=ANOTHER), replied]


@planted("a turn is stored with another sequence than was told", rules.SAME)
def another_sequence(case, pick):
    case.retell(one(pick, case.of("answered")), sequence=77)


@planted("a turn is stored in another session", rules.SAME)
def another_session(case, pick):
    turn = one(pick, (turn for turn in case.of("answered") if len(case.seen["ann"].transcripts) > 1))
    other = one(pick, (each for each in case.seen["ann"].transcripts if each != turn.session_id))
    pair, _ = case.take_out(turn)
    case.seen["ann"].transcripts[other].extend(pair)


@planted("a refused turn is in the transcript", rules.REFUSED)
def refused_stored(case, pick):
    turn = one(pick, case.of("refused"))
    case.transcript(turn).extend(entries("ann", Stored(turn.turn_id, 99, turn.session_id, turn.text, "a reply")))


@planted("a refused turn is in the history", rules.REFUSED)
def refused_in_history(case, pick):
    turn = one(pick, case.of("refused"))
    case.seen["ann"].history.append(Stored(turn.turn_id, 99, turn.session_id, turn.text, "a reply"))


@planted("a refused turn is said to be committed", rules.REFUSED)
def refused_committed(case, pick):
    turn = one(pick, case.of("refused"))
    case.seen["ann"].states[turn.turn_id] = State("committed", "a reply", turn.session_id, 99)


@planted("a replay has another reply", rules.REPLAYED)
def replayed_otherwise(case, pick):
    turn = one(pick, case.of("answered"))
    last = turn.tries[-1]
    again = Try(last.ended, last.ended + 0.1, "answered", "200", replace(last.reply, text=ANOTHER))
    case.turns[case.turns.index(turn)] = replace(turn, tries=(*turn.tries, again))


@planted("two clients under one key are told different replies", rules.REPLAYED)
def told_differently(case, pick):
    turn = one(pick, case.of("answered"))
    reply = replace(turn.reply, text=ANOTHER)
    case.turns.append(replace(turn, tries=(Try(turn.sent, turn.ended, "answered", "200", reply),)))


@planted("the outcome of a turn has another reply than was told", rules.REPLAYED)
def asked_otherwise(case, pick):
    turn = one(pick, case.of("answered"))
    states = case.seen["ann"].states
    states[turn.turn_id] = replace(states[turn.turn_id], reply=ANOTHER)


@planted("a sequence is missing", rules.COUNTED)
def gap(case, pick):
    """A turn of unknown outcome was committed, and others after it, but no transcript has it."""
    last = max(turn.reply.sequence for turn in case.of("answered")) if case.of("answered") else 0
    turn = one(
        pick,
        (turn for turn in case.of("unknown") if (stored := case.stored(turn)) and stored.sequence < last),
    )
    case.take_out(turn)


@planted("two turns have one sequence", rules.COUNTED)
def repeated(case, pick):
    first, second = one(pick, ((a, b) for a in case.of("answered") for b in case.of("answered") if a is not b))
    case.retell(first, sequence=second.reply.sequence)


@planted("the history lacks the last turn", rules.TAIL)
def history_behind(case, pick):
    one(pick, case.seen["ann"].history)
    case.seen["ann"].history.pop()


@planted("the history has its turns in the wrong order", rules.TAIL)
def history_mixed_up(case, pick):
    history = case.seen["ann"].history
    one(pick, history[1:])
    history[0], history[-1] = history[-1], history[0]


@planted("the history has another reply than the transcript", rules.TAIL)
def history_differs(case, pick):
    history = case.seen["ann"].history
    at = one(pick, range(len(history)))
    history[at] = replace(history[at], reply=ANOTHER)


@planted("the history is longer than the window", rules.TAIL)
def history_too_long(case, pick):
    history = case.seen["ann"].history
    one(pick, (turn for turn in history[:1] if turn.sequence > 1))
    history.insert(0, replace(history[0], turn_id="turn-before", sequence=history[0].sequence - 1))


@planted("the transcript of a user has the text of another", rules.OWN)
def text_of_another(case, pick):
    turn = one(pick, (turn for turn in case.of("answered", user="bob")))
    session = one(pick, case.seen["ann"].transcripts.values())
    session.extend(entries("ann", replace(case.stored(turn), sequence=99)))


@planted("the transcript has what nobody sent", rules.OWN)
def text_of_nobody(case, pick):
    session = one(pick, case.seen["ann"].transcripts)
    case.seen["ann"].transcripts[session].extend(entries("ann", Stored("turn-?", 99, session, "what?", "that")))


@planted("a message in the transcript of a user is another user's", rules.OWN)
def message_of_another(case, pick):
    session = one(pick, (each for each in case.seen["ann"].transcripts.values() if each))
    session[0] = replace(session[0], user_id="bob")


@planted("a turn is answered as another", rules.OWN)
def answered_as_another(case, pick):
    case.retell(one(pick, case.of("answered")), turn_id="turn-of-another")


@planted("a turn is answered in another session", rules.OWN)
def answered_elsewhere(case, pick):
    case.retell(one(pick, case.of("answered")), session_id="bob-1")


@planted("a message has no reply in the transcript", rules.WHOLE)
def without_reply(case, pick):
    session = one(pick, (each for each in case.seen["ann"].transcripts.values() if each))
    session.pop()


@planted("two turns of a transcript are interleaved", rules.WHOLE)
def interleaved(case, pick):
    session = one(pick, (each for each in case.seen["ann"].transcripts.values() if len(each) >= 4))
    session[1], session[2] = session[2], session[1]


@planted("an answered turn is said not to be committed", rules.SETTLED)
def answered_and_forgotten(case, pick):
    case.seen["ann"].states[one(pick, case.of("answered")).turn_id] = State("not_committed")


@planted("a turn of unknown outcome is in the transcript and is said not to be committed", rules.SETTLED)
def stored_and_forgotten(case, pick):
    turn = one(pick, (turn for turn in case.of("unknown") if case.stored(turn)))
    case.seen["ann"].states[turn.turn_id] = State("not_committed")


@planted("a turn of unknown outcome has another reply than the transcript", rules.SETTLED)
def unknown_differs(case, pick):
    turn = one(pick, (turn for turn in case.of("unknown") if case.stored(turn)))
    states = case.seen["ann"].states
    states[turn.turn_id] = replace(states[turn.turn_id], reply=ANOTHER)


@planted("a turn is still open at the end", rules.ENDED)
def still_open(case, pick):
    case.seen["ann"].states[one(pick, case.of("unknown", "answered", "refused")).turn_id] = State("open")


@planted("one activation answers between two answers of another", rules.ALONE)
def active_twice(case, pick):
    case.activations += [Activation("ann", "a", "pod-0", 1.0, 9.0), Activation("ann", "b", "pod-1", 5.1, 5.0)]


@planted("two activations answer in turn for a while", rules.ALONE)
def active_side_by_side(case, pick):
    case.activations += [Activation("ann", "a", "pod-0", 1.0, 6.0), Activation("ann", "b", "pod-1", 5.0, 9.0)]


def spoilt(case, sentence, pick):
    rule, plant = PLANTED[sentence]
    plant(case, pick)
    return rule


def first(found):
    return found[0]


def eventful():
    """Two users, and one turn at least of every fate."""
    system = System()
    for fate in ("answered", "stored", "answered", "refused", "replayed", "late", "answered", "lost", "answered"):
        system.turn("ann", 1, fate)
    system.turn("bob", 1, "answered")
    system.turn("bob", 1, "answered", at_once=True)
    for fate in ("answered", "answered", "answered"):
        system.turn("ann", 2, fate)
    return system.rest()


def test_a_run_with_turns_of_every_fate_is_without_a_violation():
    case = eventful()
    assert {turn.outcome for turn in case.turns} == {"answered", "refused", "unknown"}
    assert case.broken() == []


@pytest.mark.parametrize("sentence", PLANTED)
def test_it_is_found_that(sentence):
    case = eventful()
    rule = spoilt(case, sentence, first)
    broken = case.broken()
    assert rule in {each.rule for each in broken}
    assert all(each.user_id == "ann" and each.words for each in broken)


def test_every_rule_has_a_planted_violation():
    assert {rule for rule, _ in PLANTED.values()} == set(rules.RULES)


systems = st.lists(
    st.tuples(
        st.sampled_from(["ann", "ann", "ann", "bob"]),
        st.integers(1, 2),
        st.sampled_from(FATES),
        st.floats(0.01, 3),
        st.booleans(),
    ),
    max_size=30,
)


def played(script):
    system = System()
    for user_id, session, fate, seconds, at_once in script:
        system.turn(user_id, session, fate, seconds, at_once=at_once)
    return system.rest()


def unread(case, transcripts, history):
    """Takes from a case what could not be read."""
    for seen in case.seen.values():
        seen.transcripts = {} if transcripts else seen.transcripts
        seen.history = None if history else seen.history


@given(systems, st.booleans(), st.booleans())
def test_a_system_that_keeps_its_promises_has_no_violation_whatever_happens(script, transcripts, history):
    case = played(script)
    unread(case, transcripts, history)
    assert case.broken() == []


@given(systems, st.sampled_from(list(PLANTED)), st.data())
def test_a_violation_is_found_wherever_it_is_planted(script, sentence, data):
    case = played(script)
    assume("ann" in case.seen)
    try:
        rule = spoilt(case, sentence, lambda found: data.draw(st.sampled_from(found)))
    except Nothing:
        assume(False)
    assert rule in {each.rule for each in case.broken()}


@pytest.mark.parametrize(
    ("sentence", "transcripts"),
    [
        ("a sequence is missing", False),
        ("two turns have one sequence", True),
        ("the history lacks the last turn", True),
        ("a turn is committed before one that was answered when it was sent", True),
        ("a refused turn is in the history", True),
        ("an answered turn is said not to be committed", True),
    ],
)
def test_what_is_read_is_enough_to_find_that(sentence, transcripts):
    case = eventful()
    rule = spoilt(case, sentence, first)
    unread(case, transcripts, False)
    assert rule in {each.rule for each in case.broken()}


def test_without_transcripts_a_turn_of_unknown_outcome_explains_a_gap_and_no_second_one():
    system = System()
    for fate in ("answered", "stored", "answered"):
        system.turn("ann", 1, fate)
    case = system.rest()
    unread(case, True, True)
    assert case.broken() == []
    case.retell(case.of("answered")[-1], sequence=4)
    case.seen["ann"].states.clear()
    assert [each.rule for each in case.broken()] == [rules.COUNTED]


def test_a_key_that_was_used_for_another_message_stores_the_first():
    case = eventful()
    turn = case.of("answered")[0]
    refused = (Try(turn.ended, turn.ended + 0.1, "refused", "422 /problems/key-reused"),)
    case.turns.append(replace(turn, text=ANOTHER, tries=refused))
    assert case.broken() == []


def test_activations_that_follow_each_other_are_none_at_a_time():
    case = eventful()
    case.activations += [
        Activation("ann", "a", "pod-0", 1.0, 5.0),
        Activation("ann", "b", "pod-1", 5.0, 9.0),
        Activation("ann", "c", "pod-0", 9.3, 9.1),  # asked while the actor moved
        Activation("bob", "d", "pod-1", 1.0, 9.0),
    ]
    assert case.broken() == []


# What is told on its way from the users to the master.


def turn(user_id, number, due=0.0, seconds=0.1, outcome="answered", *, tries=1):
    reply = Reply("yes", f"{user_id}-1", f"{user_id}-{number}", number) if outcome == "answered" else None
    broken = [Try(due, due, "unknown", "no answer")] * (tries - 1)
    last = Try(due, due + seconds, outcome, "", reply)
    return Turn(user_id, f"{user_id}-{number}", f"{user_id}-1", "hello", due, (*broken, last))


def test_what_processes_note_is_the_same_where_it_is_put_together():
    one, other, told = Notes(), Notes(), Told()
    one.turn(turn("ann", 1))
    other.turn(turn("bob", 1, outcome="refused", tries=3))
    one.activation("ann", "a", "pod-0", 1.0, 1.5)
    other.activation("ann", "a", "pod-0", 0.5, 0.75)
    for notes in (one, other):
        told.add(notes.take())
        told.add(notes.take())  # nothing more
    assert told.users == {"ann": [turn("ann", 1)], "bob": [turn("bob", 1, outcome="refused", tries=3)]}
    assert told.activations == [Activation("ann", "a", "pod-0", 0.75, 1.0)]


def test_of_a_very_long_run_some_users_are_kept_wholly_and_the_others_are_counted():
    told = Told(most_turns=40)
    notes = Notes()
    for number in range(1, 11):
        for user in range(10):
            notes.turn(turn(f"user-{user}", number))
    told.add(notes.take())
    assert 0 < len(told.turns) <= 40
    assert all(len(turns) == 10 for turns in told.users.values())
    assert len(told.turns) + told.left_out == 100


# How long nobody was answered.


def test_the_longest_pause_is_one_in_which_a_turn_was_open():
    turns = [turn("ann", 1, 0, 1), turn("bob", 1, 0, 2), turn("ann", 2, 100, 3), turn("bob", 2, 101, 3)]
    longest = pauses.longest(turns)
    assert (longest.started, longest.ended) == (100, 103)


def test_a_turn_that_is_given_up_ends_no_pause():
    turns = [turn("ann", 1, 0, 10, "unknown"), turn("bob", 1, 1, 3, "refused"), turn("cat", 1, 2, 9)]
    assert pauses.longest(turns).seconds == 11
    assert pauses.longest(turns[:2]).seconds == 10


def test_one_user_may_wait_while_others_are_answered():
    turns = [turn("ann", 1, 0, 5), *(turn("bob", number, number, 0.5) for number in range(5))]
    assert pauses.longest(turns).seconds == 1
    worst = pauses.longest_of_one(turns)
    assert (worst.user_id, worst.seconds) == ("ann", 5)
    assert pauses.longest_of_one(turns, started=6) is None


def second_by_second(*seconds):
    return [turn("ann", number, float(number), took) for number, took in enumerate(seconds)]


@pytest.mark.parametrize(
    ("turns", "recovered"),
    [
        (second_by_second(0.1, 0.1, 0.1, 0.1, 0.1), 0.0),
        (second_by_second(0.1, 0.1, 3.0, 2.0, 0.1), 2.5),
        (second_by_second(0.1, 0.1, 0.1, 2.0, 0.1), 2.5),
        (second_by_second(0.1, 0.1, 3.0, 2.0, 1.0), None),
        ([*second_by_second(0.1, 0.1), turn("ann", 2, 2.0, tries=2), turn("ann", 3, 3.0)], 1.5),
        ([*second_by_second(0.1, 0.1), turn("ann", 2, 2.0, outcome="refused"), turn("ann", 3, 3.0)], 1.5),
        (second_by_second(), None),
    ],
    ids=[
        "nothing changed",
        "two turns were slow",
        "a later one was slow",
        "not until the end",
        "one was tried again",
        "one was refused",
        "nobody was there",
    ],
)
def test_recovery_is_when_every_turn_from_then_on_is_answered_as_before(turns, recovered):
    assert pauses.recovery_seconds(turns, before=0, changed=1.5, ended=10) == recovered
