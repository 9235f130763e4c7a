"""How many turns a process takes on, as its timers are late or not."""

from chat_service.admission import LEAST, TICK_SECONDS, Admission
from hypothesis import given
from hypothesis import strategies as st


def after(admission: Admission, seconds: float, late: float) -> Admission:
    """Time goes by, in which timers are so late."""
    for _ in range(int(seconds / (TICK_SECONDS + late))):
        admission.tick(late)
    return admission


def places(admission: Admission) -> int:
    """How many turns it takes on besides those that are open."""
    open_before, taken = admission.open, 0
    while not admission.full:
        admission.open += 1
        taken += 1
    admission.open = open_before
    return taken


def test_a_process_that_keeps_up_takes_on_as_many_as_are_set():
    admission = after(Admission(1000, 0.025), 60, 0.002)
    assert places(admission) == 1000


def test_one_that_does_not_takes_on_fewer_and_fewer_within_seconds_but_some_always():
    admission = Admission(1000, 0.025)
    admission.open = 400
    after(admission, 1.5, 0.2)
    assert admission.full
    admission.open = LEAST
    after(admission, 30, 0.2)
    admission.open = 0
    assert places(admission) == LEAST


def test_the_later_timers_are_the_faster_it_takes_on_fewer():
    somewhat, far_too = Admission(1000, 0.025), Admission(1000, 0.025)
    for admission, late in ((somewhat, 0.05), (far_too, 0.5)):
        admission.open = 400
        after(admission, 3, late)
        admission.open = 0
    assert places(far_too) < places(somewhat) < 400


def test_while_a_timer_is_far_too_late_only_the_least_number_is_taken_on():
    now = 0.0
    admission = Admission(1000, 0.025, lambda: now)
    admission.tick(0.0)
    now = TICK_SECONDS + 0.1
    assert places(admission) == 1000
    now = TICK_SECONDS + 1.0
    assert places(admission) == LEAST
    admission.tick(1.0)
    assert places(admission) == 1000


def test_a_moment_in_which_a_timer_is_late_is_no_overload():
    admission = Admission(1000, 0.025)
    admission.open = 100
    after(admission, 5, 0.0)
    admission.tick(0.1)
    after(admission, 5, 0.0)
    assert places(admission) == 900


def test_turns_that_wait_for_a_slow_model_are_no_overload():
    admission = Admission(1000, 0.025)
    admission.open = 999
    assert not after(admission, 60, 0.001).full


def test_afterwards_it_soon_takes_on_as_many_as_before():
    admission = Admission(1000, 0.025)
    admission.open = 400
    after(admission, 30, 0.2)
    admission.open = 10
    after(admission, 12, 0.0)
    assert places(admission) == 990


def test_messages_in_line_behind_another_of_their_user_are_not_what_makes_timers_late():
    admission = Admission(1000, 0.025)
    admission.open, admission.in_line = 900, 890
    assert not after(admission, 30, 0.2).full


def test_timers_that_are_late_while_few_turns_are_open_are_no_overload():
    """A process that starts, or other pods on its node, take the CPU then."""
    admission = Admission(1000, 0.025)
    admission.open = LEAST - 1
    after(admission, 30, 1.0)
    admission.open = 0
    assert places(admission) == 1000


def test_messages_in_line_count_for_the_fixed_number():
    admission = Admission(100, 0.025)
    admission.open = admission.in_line = 100
    assert admission.full


@given(most=st.integers(1, 2000), late=st.lists(st.floats(0, 5), max_size=200), opened=st.integers(0, 3000))
def test_the_limit_is_never_below_the_least_nor_above_the_most(most: int, late: list[float], opened: int):
    admission = Admission(most, 0.025)
    admission.open = opened
    for one in late:
        admission.tick(one)
    admission.open = 0
    assert min(LEAST, most) <= places(admission) <= most
