"""Load on the chat and on Dapr's actor placement: ``locust -f load-tests/locustfile.py --help``.

What each user class does is told in actor_load/users, shapes in actor_load/shapes.py, scenarios in
actor_load/scenarios; docs/load-testing.md has the tour.
"""

from actor_load import options, wiring
from actor_load.users.actors import ActivationStorm, ColdActors, HotActors, ReadsAndWrites
from actor_load.users.arrivals import Arrivals
from actor_load.users.conversation import Conversation
from actor_load.users.visits import Visits
from locust import events
from locust.argument_parser import get_parser

__all__ = ["ActivationStorm", "Arrivals", "ColdActors", "Conversation", "HotActors", "ReadsAndWrites", "Visits"]

events.init_command_line_parser.add_listener(options.add_arguments)
events.init.add_listener(wiring.attach)

if __name__ == "__main__":  # `locust --help` prints before it has read a locustfile
    get_parser().print_help()
