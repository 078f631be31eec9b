"""What can go wrong with jobs. None of these knows HTTP."""


class JobNotFound(Exception):
    """The user has no such job."""


class SubmissionRefused(Exception):
    """The job cannot be started; the message is for the user."""


class NameTaken(SubmissionRefused):
    """The user has a job of this name."""


class ResultsInTheWay(SubmissionRefused):
    """Files lie where the job's results would be written, and where its deletion would remove
    them."""


class InputMissing(SubmissionRefused):
    """An input does not exist."""


class UnusableInput(SubmissionRefused):
    """An input's name is one that workers cannot fetch, or that no storage can hold."""


class InputsClash(SubmissionRefused):
    """Two inputs hold different files for the same place in the container."""


class TooManyInputs(SubmissionRefused):
    """The job has more input files than the service allows."""
