"""How certain it is that a task belongs to a request: the evidence for and against, and the grade.

`exact`: the evidence names the task, and nothing speaks against it. `likely`: there was one
candidate, but other tasks would have the same target_uri. `ambiguous`: there were several
candidates. `none`: no request is known. A wrong `exact` is the worst bug of this program, so
everything that speaks against a match lowers its grade.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.records import Grade


@dataclass(slots=True)
class Certainty:
    """The evidence for and against a match.

    joined      A request is known.
    named       The evidence names this task: no task of another request would match it.
    beside      A start record stands next to the request. If nothing similar is near, that is as
                good as a name.
    crowded     Another start or request with the same form was near.
    contested   The request or the task may belong to another one.
    doubtful    Something speaks against the match, but does not point to another one.
    """

    joined: bool = False
    named: bool = False
    beside: bool = False
    crowded: bool = False
    contested: bool = False
    doubtful: bool = False

    @property
    def grade(self) -> Grade:
        """The grade of the match."""
        if not self.joined:
            return "none"
        if self.contested:
            return "ambiguous"
        is_told = self.named or (self.beside and not self.crowded)
        return "exact" if is_told and not self.doubtful else "likely"
