"""The reader in charge: what agents are handed, whatever version of the heads that is."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.domain.policy import Category, Intent, Sentiment
from appliance.logs import get_logger
from appliance.understanding.heads import Floats
from appliance.understanding.learnt import Learnt, LearntReader
from appliance.understanding.versions import HeadVersions

log = get_logger()


class CurrentReader:
    """Keeps the ``Reading`` protocol. Looks at every query whether another version took over, in
    this process or another: a stat of a file, microseconds.

    :param shipped: what reads where no version is in charge, or the one in charge cannot be used.
    :param fits: encoder and features that versions must have been made with.
    """

    def __init__(self, shipped: Learnt, versions: HeadVersions, fits: str) -> None:
        self.shipped = shipped
        self.fits = fits
        self._versions = versions
        self._stamp: tuple[int, int] | None = None
        self._number = 0
        self._learnt = shipped
        self._reader = LearntReader(shipped)

    @property
    def learnt(self) -> Learnt:
        """The heads in charge."""
        self._look()
        return self._learnt

    @property
    def version(self) -> int:
        """The number of the version that reads; 0 is what is shipped."""
        self._look()
        return self._number

    @property
    def fingerprint(self) -> str:
        """What the heads in charge compute with."""
        self._look()
        return self._reader.fingerprint

    def category(
        self,
        text: str,
        vector: Floats,
        *,
        votes: dict[str, float],
        advice: dict[str, float] | None = None,
    ) -> tuple[Category, float]:
        """See ``Reading``."""
        self._look()
        return self._reader.category(text, vector, votes=votes, advice=advice)

    def sentiment(
        self, text: str, vector: Floats, *, advice: dict[str, float] | None = None
    ) -> tuple[Sentiment, float]:
        """See ``Reading``."""
        self._look()
        return self._reader.sentiment(text, vector, advice=advice)

    def intent(self, text: str, vector: Floats, *, first: bool) -> tuple[Intent, float]:
        """See ``Reading``."""
        self._look()
        return self._reader.intent(text, vector, first=first)

    def wants_person(self, text: str, vectors: Sequence[Floats]) -> bool:
        """See ``Reading``."""
        self._look()
        return self._reader.wants_person(text, vectors)

    def _look(self) -> None:
        stamp = self._versions.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        standing = self._versions.standing()
        note = standing.version(standing.in_charge)
        learnt = None
        if note is not None and note.fits == self.fits:
            learnt = self._versions.load(note)
        number = standing.in_charge if learnt is not None else 0
        if number != standing.in_charge:
            log.warning("heads_fall_back", version=standing.in_charge, to="shipped")
        if learnt is None:
            learnt = self.shipped
        self._number, self._learnt = number, learnt
        self._reader = LearntReader(learnt)
        log.info("heads_in_charge", version=number)
