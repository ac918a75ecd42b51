"""What can be wrong with this machine or this checkout, told as two sentences: what it is, and what to do next."""

from __future__ import annotations


class Fault(Exception):
    """A fault that a person can mend; `what` names the thing and its value, `next_step` says what to do."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}.\n  Next step: {next_step}.")
        self.what = what
        self.next_step = next_step
