"""What becomes of a thread's situation by all that it does not do itself: as far as is known, and growing as more is seen to be done."""

from __future__ import annotations

from mmucheck.lower.situations import Bits, bits_of, each
from mmucheck.lower.surroundings import Surroundings


class Deeds:
    """What threads have been seen to do to each other: for each face to which it is done, the turns and who does them (a bit for each
    path). ``log``: the same in the order in which it was seen."""

    def __init__(self) -> None:
        self._doers: dict[tuple[int, int], int] = {}
        self.log: dict[int, list[tuple[int, int]]] = {}
        self.fresh: list[int] = []
        """The faces of which the log has grown, one after the other."""

    def publish(self, face: int, turn: int, doers: int) -> None:
        """A turn is done to those who have this face."""
        known = self._doers.get((face, turn), 0)
        if doers & ~known:
            self._doers[face, turn] = known | doers
            self.log.setdefault(face, []).append((turn, doers & ~known))
            self.fresh.append(face)


class Relation:
    """From situations to those that may come next by a device, by an unknown holder, or by what those ``beside`` do (as bits)."""

    def __init__(self, surroundings: Surroundings, deeds: Deeds, beside: int) -> None:
        self._surroundings, self._deeds, self._beside = surroundings, deeds, beside
        self._next: dict[int, frozenset[int]] = {}
        self._of_face: dict[int, list[int]] = {}
        self._heard = 0
        self._taken: dict[int, int] = {}
        self.grown: list[Bits] = []
        """The situations from which more was found to come, each time that some were."""

    def update(self) -> None:
        """Take into account what has been done since the last time."""
        more: list[int] = []
        for face in dict.fromkeys(self._deeds.fresh[self._heard :]):
            start, self._taken[face] = self._taken.get(face, 0), len(self._deeds.log[face])
            for number in self._of_face.get(face, ()):
                before = self._next[number]
                after = before.union(*self._turned(number, face, start))
                if len(after) > len(before):
                    self._next[number] = after
                    more.append(number)
        self._heard = len(self._deeds.fresh)
        if more:
            self.grown.append(bits_of(sorted(more)))

    def _turned(self, number: int, face: int, start: int = 0) -> list[tuple[int, ...]]:
        log = self._deeds.log.get(face, ())[start:]
        return [self._surroundings.turned(number, turn) for turn, doers in log if doers & self._beside]

    def next(self, of: Bits) -> Bits:
        """What may come of any of these next."""
        return bits_of(sorted(set().union(*(self.after(number) for number in each(of)))))

    def after(self, number: int) -> frozenset[int]:
        """What may come next."""
        found = self._next.get(number)
        if found is None:
            face = self._surroundings.face(number)
            self._of_face.setdefault(face, []).append(number)
            found = frozenset(self._surroundings.by_itself(number)).union(*self._turned(number, face))
            self._next[number] = found
        return found

    def closure(self, of: Bits, seen: Bits = 0) -> Bits:
        """All that may come of these, and these, without what has been ``seen`` and what comes of that."""
        new = waiting = of & ~seen
        while waiting:
            waiting = self.next(waiting) & ~(seen | new)
            new |= waiting
        return new
