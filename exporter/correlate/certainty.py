"""How sure it is that a task belongs to its request: what speaks for the match and against it, and the grade.

`exact`: the evidence names the task, and nothing speaks against it. `likely`: there was one candidate, but others
would have the same target_uri. `ambiguous`: there were several. `none`: no request is known. An exact match that
is wrong is the worst bug of this program, so whatever speaks against a match lowers its grade.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.records import Grade


@dataclass(slots=True)
class Certainty:
    """What is known for and against a match.

    joined      A request is known.
    named       The evidence names this task: no other request's task would have it.
    beside      A start record stands beside the request: with nothing like them near, that is as good as a name.
    crowded     Another start or request of the same form was near.
    contested   The request, or the task, could as well have been another's.
    doubtful    Something speaks against the match, but names no other.
    """

    joined: bool = False
    named: bool = False
    beside: bool = False
    crowded: bool = False
    contested: bool = False
    doubtful: bool = False

    @property
    def grade(self) -> Grade:
        """How sure the match is."""
        if not self.joined:
            return "none"
        if self.contested:
            return "ambiguous"
        is_told = self.named or (self.beside and not self.crowded)
        return "exact" if is_told and not self.doubtful else "likely"
