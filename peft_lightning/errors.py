"""The one exception that means: what the user gave cannot be right."""


class UserError(Exception):
    """Bad input, told in one sentence that names the option, file, row, column or key and says what to do.

    The command line prints the sentence without a traceback and exits with status 1.
    """
