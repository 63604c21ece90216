"""Pairs of a path with a weakened lock and a partner: what the rows of tests/locks.json say, decided anew.

``python tests/weak_pairs.py v3.17 ptl,pmd_ptl [path...]`` looks for partners for the sections of these locks and prints rows (JSON, with
what was tried), for a reader to judge.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmucheck.analyses.plan import Builder
from mmucheck.analyses.subjects import Subject
from mmucheck.engines import pairs
from mmucheck.engines.cells import Exhausted
from mmucheck.engines.pairs import Exploration, PairSession
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import Decision, InternalError
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import threads_of
from mmucheck.names.builtins import ALIGNMENT
from mmucheck.names.declarations import check
from mmucheck.names.loading import load
from mmucheck.syntax import ast

sys.path.insert(0, str(Path(__file__).resolve().parent))
from weaken_locks import REMOVED, Site, sites, walking, weakened

HERE = Path(__file__).resolve().parent
KERNEL = {
    "v3.17": {"cpu": ("v3_17", ""), "ats": ("v3_19", "roedel_2014")},
    "v4.15": {"cpu": ("v4_15", ""), "ats": ("v4_15", "")},
    "v6.6": {"cpu": ("v6_6", ""), "ats": ("v6_6", "")},
}
"""The protocol, and the change after which it holds, under which a device is told by a kernel's paths."""
TABLE_LOCKS = {("PTE", "PMD"): "ptl", ("PMD", "PUD"): "pmd_ptl"}
"""The lock of the lower-level entries, by levels."""


@dataclass(frozen=True)
class Row:
    """One section of one path. Noticed: with the lock given up ``early`` (see weaken_locks), together with ``partner`` ("itself": the
    weakened path again), ``property`` breaks on ``device``; both threads are at ``place`` ("here", the page asked about, or "next", the
    one behind it; with a parameter's name, which of the path's is there). Else ``unnoticed`` says why."""

    path: str
    lock: str
    early: int = REMOVED
    partner: str = ""
    device: str = ""
    property: str = ""
    place: str = ""
    unnoticed: str = ""


def library() -> Builder:
    """The paths and the partners."""
    loaded = load([HERE / "locks.mmu"])
    check(loaded)
    return Builder(loaded)


EXTRACTS = {"move_ptes_page": "one page of move_page_tables, which has the same sections"}
"""Paths without rows of their own."""


def paths(builder: Builder, kernel: str) -> list[str]:
    return sorted(v.declaration.name for v in builder.library.paths() if v.version == kernel and v.declaration.name not in EXTRACTS)


def system(builder: Builder, kernel: str, path: str, partner: str, device: str) -> tuple[Subject, System]:
    """A path and its partner, nothing weakened."""
    protocol, change = KERNEL[kernel][device]

    def key(name: str) -> tuple[str, str]:
        return (name, kernel) if (name, kernel) in builder.library.code else (name, "")

    names = (key(path), key(path if partner == "itself" else partner))
    subject = Subject(names, (device,), protocol, change, "after" if change else "")
    return subject, builder.system(subject)


def weak(whole: System, lock: str, early: int, both: bool) -> System | None:
    """The system with the section of the first path (of both, if they are the same) weakened."""
    first, second = whole.threads
    site = next(s for s in sites(first) if s.name == lock)
    broken = weakened(first, site, early)
    if broken is None:
        return None
    return replace(whole, threads=(broken, broken if both else second))


def decide(builder: Builder, subject: Subject, asked: System, names: Sequence[str], place: str, limits: Limits) -> dict[str, Decision]:
    """The verdicts of runs at one place. The asserts are those of the partner, and what the path relies on when it
    walks to an entry."""
    if "asserts" in names:
        first, second = asked.threads
        asked = replace(asked, threads=(walking(first, TABLE_LOCKS[asked.levels]), second))
    with at_one_place(place):
        session = PairSession(asked, builder.properties(subject, names), limits)
        return {p.name: session.decide(p) for p in session.properties}


@contextmanager
def at_one_place(place: str) -> Iterator[None]:
    where, _, param = place.partition(" ")

    class AtOnePlace(Exploration):
        """The runs in which the first argument of each path is at one place, and a range is of one page: the numbers for which two paths
        get into each other's way. What it refutes is replayed like any refutation."""

        def __init__(self, asked: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float) -> None:
            super().__init__(asked, properties, limits, deadline)
            start, terms = self.world.starts[0], self.world.terms
            threads = [t for t in threads_of(asked) if not t.device]
            for thread in threads:
                sizes = {n: 1 << max(asked.page_bits, ALIGNMENT[k]) for n, k in thread.program.params if k in ALIGNMENT}
                at = param if param in sizes else next(iter(sizes))
                size = terms.const(sizes[at], NUMBER)
                key = terms.binary("and", start["page.a.addr"], terms.const(-sizes[at], NUMBER))
                self._order.append(terms.eq(start[thread.local(at)], terms.binary("add", key, size) if where == "next" else key))
                if {"start", "end"} <= sizes.keys():
                    one, other = start[thread.local("start")], start[thread.local("end")]
                    self._order.append(terms.eq(other, terms.binary("add", one, size)))

        def _within_limits(self) -> None:
            if self._wanted <= self.outcome.breaches.keys():
                raise Exhausted("broken: there is nothing more to see")
            super()._within_limits()

    kept = pairs.Exploration
    pairs.Exploration = AtOnePlace  # type: ignore[misc]
    try:
        yield
    finally:
        pairs.Exploration = kept  # type: ignore[misc]


# ---- looking for partners

FRAMES = ("no_freed_page", "no_stale_translation", "no_stale_write")
TABLES = ("no_freed_table",)
ASSERTS = ("asserts",)
MOST = 12
"""Up to how many steps early a lock is given up."""
SEARCH = Limits(timeout=10)


EXCLUDED = {
    ("mmap_sem", ""): (("munmap", ASSERTS), ("follow_table", ASSERTS), ("itself", FRAMES)),
    ("mmap_sem", "huge"): (("follow_table", ASSERTS), ("change_huge_pmd", FRAMES), ("itself", FRAMES)),
    ("mmap_sem", "shared"): (("munmap_shared", ASSERTS), ("follow_table_shared", ASSERTS), ("itself", FRAMES)),
    ("page_lock", ""): (("itself", FRAMES), ("remove_migration_pte", FRAMES), ("try_to_unmap_one", FRAMES)),
    ("page_lock", "huge"): (("itself", FRAMES),),
    ("page_lock", "shared"): (("itself", FRAMES),),
    ("anon_vma_lock", ""): (("munmap", ASSERTS),),
    ("anon_vma_lock", "huge"): (("itself", FRAMES), ("try_to_unmap_one", FRAMES), ("remove_migration_pte", FRAMES)),
    ("i_mmap_mutex", ""): (("munmap", ASSERTS), ("itself", FRAMES), ("page_mkclean_one", FRAMES)),
    ("i_mmap_mutex", "huge"): (("itself", FRAMES),),
    ("i_mmap_mutex", "shared"): (("munmap_shared", ASSERTS), ("itself", FRAMES), ("fault_shared", TABLES)),
}
"""For the other locks: who takes them, too, or who meets what they keep. By lock and kind of path."""


def candidates(builder: Builder, kernel: str, path: str, site: Site) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(partner, device, properties, place), the likely ones first."""
    declaration = next(v.declaration for v in builder.library.paths() if v.declaration.name == path and v.version == kernel)
    assert isinstance(declaration, ast.Path)
    params = {p.name: p.kind for p in declaration.params}
    if declaration.levels is not None:
        kind, shipped = "shared", "try_to_unmap_one_hugetlb"
    elif "huge_page" in params.values():
        kind, shipped = "huge", "do_huge_pmd_wp_page"
    else:
        kind, shipped = "", "do_wp_page"
    suffix = f"_{kind}" if kind else ""
    at = [f" {n}" for n in ("old_addr", "new_addr")] if "old_addr" in params else [""]
    if site.name.startswith(("ptl", "pmd_ptl")):
        order = [
            (f"fault{suffix}", "cpu", FRAMES), (f"follow_{kind or 'page'}", "cpu", ASSERTS), ("itself", "cpu", FRAMES),
            *([("remove_migration_pte", "cpu", FRAMES)] if not kind else []), (f"unmap{suffix}", "cpu", FRAMES),
            (shipped, "cpu", FRAMES), (f"fault{suffix}", "ats", FRAMES),
        ]  # fmt: skip
        if "old_addr" in params:
            order.sort(key=lambda asked: asked[2] != ASSERTS)  # the least states first
    else:
        order = [(p, "cpu", names) for p, names in EXCLUDED[site.name.split()[0], kind]]
    for partner, device, names in order:
        if partner != "itself" and not {(partner, kernel), (partner, "")} & builder.library.code.keys():
            continue
        for param in at:
            yield partner, device, names, "here" + param
    for param in at:
        yield f"unmap{suffix}", "cpu", FRAMES, "next" + param


def search(builder: Builder, kernel: str, path: str, lock: str, show: bool = True) -> tuple[Row | None, list[str]]:
    """A row for a section, or None and what was tried. The least weakening that the first partner notices is taken."""
    tried: list[str] = []
    _, one = system(builder, kernel, path, "itself", "cpu")
    site = next(s for s in sites(one.threads[0]) if s.name == lock)
    for partner, device, names, place in candidates(builder, kernel, path, site):
        subject, whole = system(builder, kernel, path, partner, device)
        both = partner == "itself"
        # Who waits for the lock goes with the unlock; without a lock there is nothing that they could go with.
        shorter = [n for n in range(1, MOST) if names == TABLES and weak(whole, lock, n, both) is not None]
        weakest = max(shorter, default=REMOVED)
        asked = weak(whole, lock, weakest, both)
        assert asked is not None
        try:
            found = decide(builder, subject, asked, names, place, SEARCH)
            broken = [n for n, d in found.items() if d.verdict == "refuted"]
            tried.append(f"{partner} {device} {place}: " + " ".join(sorted({d.verdict for d in found.values()})))
            if show:
                print(path, lock, tried[-1], round(time.process_time()), file=sys.stderr, flush=True)
            if not broken:
                continue
            before = decide(builder, subject, whole, names, place, SEARCH)
            kept = [n for n in broken if before[n].verdict in ("proved", "bounded", "vacuous")]
            tried[-1] += f" {','.join(broken)}, kept before: {','.join(kept)} " + " ".join(sorted({before[n].verdict for n in broken}))
            if not kept:
                continue
            row = Row(path, lock, weakest, partner, device, kept[0], place)
            for early in range(1, MOST):
                less = weak(whole, lock, early, both)
                if less is not None and decide(builder, subject, less, (row.property,), place, SEARCH)[row.property].verdict == "refuted":
                    return replace(row, early=early), tried
            return row, tried
        except InternalError as error:  # a run of the explored world that is none of the path's: the next partner may tell
            tried.append(f"{partner} {device} {place}: {type(error).__name__} {str(error)[:200]}")
    return None, tried


def main(kernel: str, locks: str, wanted: Sequence[str]) -> None:
    builder = library()
    for path in wanted or paths(builder, kernel):
        _, one = system(builder, kernel, path, "itself", "cpu")
        for site in sites(one.threads[0]):
            if not site.name.startswith(tuple(locks.split(","))):
                continue
            began = time.process_time()
            row, tried = search(builder, kernel, path, site.name)
            said = {k: v for k, v in asdict(row or Row(path, site.name)).items() if v or k == "early"}
            print(json.dumps({**said, "macro": site.macro, "tried": tried, "seconds": round(time.process_time() - began, 1)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
