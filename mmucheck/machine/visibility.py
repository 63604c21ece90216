"""Which steps anybody else could notice. Between the others nothing needs to be looked at."""

from __future__ import annotations

from mmucheck.ir.program import DeviceVar, Expr, Look, Step, System, subexpressions

_QUIET = frozenset("nop dispatch split_page assign branch assume tlb_gather tlb_track tlb_queue tlb_queue_table".split())
_OPEN_LOOKS = frozenset("has freed table_freed".split())


def visible(step: Step, locks: frozenset[str] = frozenset()) -> bool:
    """Whether a device, an unknown holder or a property could notice when exactly the step happens.

    Steps that only read the page table or the thread's own variables commute with everything that may happen in between.
    """
    if step.op in ("lock", "unlock"):
        return step.names[0] in locks
    if step.op not in _QUIET:
        return True
    return any(_watches(e) for arg in step.args for e in subexpressions(arg))


def _watches(expr: Expr) -> bool:
    return isinstance(expr, DeviceVar) or (isinstance(expr, Look) and expr.name in _OPEN_LOOKS)


def device_locks(system: System) -> frozenset[str]:
    """Locks that a handler may hold too."""
    return frozenset(lock.name for d in system.devices for lock in d.locks)


def changes_upper(step: Step) -> bool:
    """Whether the step writes an upper-level entry."""
    return step.op in ("set_pmd", "clear_pmd", "set_pmd_marker", "populate_pmd")


def asks_cache(step: Step) -> bool:
    """Whether the step depends on what a cache holds, so that losing an entry matters."""
    return any(isinstance(e, Look) and e.name == "has" for arg in step.args for e in subexpressions(arg))
