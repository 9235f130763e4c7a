"""What a command says when it cannot go on."""

import sys
from collections.abc import Callable


class CommandError(Exception):
    """A command stops here. The message is one line that names what is wrong and the mend."""

    def __init__(self, message: str, exit_code: int = 1, said: str = "") -> None:
        """``exit_code`` 2 says that the command was called wrongly, 1 that something did not work.

        ``said`` is the end of what a tool that failed has printed; the user sees it above the message.
        """
        super().__init__(message)
        self.exit_code = exit_code
        self.said = said


def exit_code(command: Callable[[], int | None], *, interrupted: str) -> int:
    """That of a command: what it returns (nothing is 0), that of its error, which is printed, or 130 after Ctrl-C.

    ``interrupted`` says then what becomes of what was under way.
    """
    try:
        return command() or 0
    except CommandError as error:
        if error.said:
            print(error.said, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        return 130
