"""What the node has been told of its assignment, page by page (pure).

Invariants: a half-received assignment is never seen; a difference counts only on top of exactly the
assignment it was made for; the sequence never goes back unless `forget_sequence` was called.
"""

from __future__ import annotations

from cluster.dispatch.messages import AssignmentDiff, FullAssignment
from cluster.dispatch.session import Difference, join_pages, patch
from cluster.model.assignment import Assignment


class OutOfStep(Exception):
    """The manager has sent what does not fit what it sent before: begin a new session."""


class AssignmentInbox:
    """The latest whole assignment."""

    def __init__(self) -> None:
        self.sequence = 0
        """Raft index that `assignment` was taken at; 0: there is none."""
        self.assignment: Assignment | None = None
        self._pages = Assignment()
        self._base: int | None = None
        """What the manager's next difference is on top of; None: a whole one must come first."""

    def begin_session(self) -> None:
        """Expect a whole assignment; half-received ones are dropped."""
        self._pages = Assignment()
        self._base = None

    def forget_sequence(self) -> None:
        """Take an older assignment too: the cluster has lost what it once told us."""
        self.sequence = 0

    def receive(self, page: FullAssignment | AssignmentDiff) -> Assignment | None:
        """Return the assignment once its last page is there; None before that.

        Raises:
            OutOfStep: the page does not fit.
        """
        match page:
            case FullAssignment():
                return self._receive_full(page)
            case AssignmentDiff():
                return self._receive_diff(page)

    def _receive_full(self, page: FullAssignment) -> Assignment | None:
        if page.sequence < self.sequence:
            raise OutOfStep(f"assignment {page.sequence} came after {self.sequence}")
        self._pages = join_pages(self._pages, page.page)
        return self._finish(self._pages, page.sequence) if page.is_last else None

    def _receive_diff(self, page: AssignmentDiff) -> Assignment | None:
        if self.assignment is None or self._base != page.base:
            raise OutOfStep(f"a difference to {page.base} came, this is {self._base}")
        self._pages = join_pages(self._pages, page.changed)
        if not page.is_last:
            return None
        changes = Difference(self._pages, page.removed)
        return self._finish(patch(self.assignment, changes), page.sequence)

    def _finish(self, assignment: Assignment, sequence: int) -> Assignment:
        self._pages = Assignment()
        self._base = self.sequence = sequence
        self.assignment = assignment
        return assignment
