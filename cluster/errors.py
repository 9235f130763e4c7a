"""What a command says when it cannot go on."""


class CommandError(Exception):
    """A command stops here. The message is one line that names what is wrong and the mend."""

    def __init__(self, message: str, exit_code: int = 1, said: str = "") -> None:
        """``exit_code`` 2 says that the command was called wrongly, 1 that something did not work.

        ``said`` is the end of what a tool that failed has printed; the user sees it above the message.
        """
        super().__init__(message)
        self.exit_code = exit_code
        self.said = said
