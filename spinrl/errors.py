"""The base of all errors that a user can mend."""


class UserError(Exception):
    """A problem that the user can mend; the message says what was expected, what was found and what to do.

    Commands print the message alone and exit, as they do for errors of the system (`OSError`); any other exception is a
    defect, and shows where it was raised.
    Subclasses exist only where code tells them apart.
    """
