"""The words the machine itself knows: steps, looks, kinds. Everything else is defined in `.mmu`.

To add a primitive: name it here, give its meaning in mmucheck.machine.steps, describe it in models/README.md.
"""

from __future__ import annotations

from mmucheck.records import record

KINDS = ("number", "bool", "frame", "table")

PARAM_KINDS = {
    "": "number", "number": "number", "address": "number", "page": "number", "huge_page": "number", "pud_page": "number",
    "size": "number", "count": "number", "bool": "bool", "frame": "frame", "table": "table",
}  # fmt: skip
"""What a parameter may be declared as, and its kind."""

BINDER_KINDS = {"device": "device", "address": "number", "frame": "frame", "table": "table"}

ALIGNMENT = {"page": 12, "huge_page": 21, "pud_page": 30}
"""Low bits known to be zero, by declared parameter kind."""

TASK_SIZE = 1 << 47
LEVEL_BITS = {"PTE": 12, "PMD": 21, "PUD": 30}
"""Levels of the page table, lowest first, and what one entry maps. A path sees two neighbours of them."""
LEVELS = ("PTE", "PMD")
"""Those of a path that names none."""

CONSTANTS = {"TASK_SIZE": (TASK_SIZE, "number"), "true": (1, "bool"), "false": (0, "bool"),
             "writable": (1, "bool"), "readonly": (0, "bool")}  # fmt: skip


@record
class Signature:
    """``partial``: may fail, so it needs an ``else`` and a ``let``."""

    params: tuple[str, ...]
    results: tuple[str, ...] = ()
    partial: bool = False
    where: str = "any"  # any, device, property


_N, _B, _F, _T = "number", "bool", "frame", "table"

STEPS: dict[str, Signature] = {
    "set_pte": Signature((_N, _F, _B)), "clear_pte": Signature((_N,)), "set_pte_marker": Signature((_N,)),
    "wrprotect_pte": Signature((_N,)), "mkwrite_pte": Signature((_N,)),
    "set_pmd": Signature((_N, _F, _B)), "clear_pmd": Signature((_N,)), "set_pmd_marker": Signature((_N,)),
    "wrprotect_pmd": Signature((_N,)), "mkwrite_pmd": Signature((_N,)),
    "fill_table": Signature((_N, _F, _B)), "clear_table": Signature((_N,)), "populate_pmd": Signature((_N, _T)),
    "assume_none_outside": Signature((_N, _N, _N)),
    "split_page": Signature((_F,)),
    "get_page": Signature((_F,)), "put_page": Signature((_F,)), "get_table": Signature((_T,)), "put_table": Signature((_T,)),
    "alloc_page": Signature((), (_F,), True), "alloc_huge_page": Signature((), (_F,), True),
    "alloc_table": Signature((), (_T,), True), "get_user_page": Signature((_N,), (_F, _B), True),
    "tlb_gather": Signature((_N, _N)), "tlb_track": Signature((_N, _N)), "tlb_queue": Signature((_F,)),
    "tlb_queue_table": Signature((_T,)), "tlb_free_pages": Signature(()), "tlb_free_tables": Signature(()),
    "might_sleep": Signature(()), "cmpxchg": Signature(("variable", _N, _N)),
}  # fmt: skip

LOOKS: dict[str, Signature] = {
    "mapped": Signature((_N,), (_B,)), "frame_at": Signature((_N,), (_F,)), "writable_at": Signature((_N,), (_B,)),
    "pte_none": Signature((_N,), (_B,)), "pte_present": Signature((_N,), (_B,)), "pte_frame": Signature((_N,), (_F,)),
    "pte_writable": Signature((_N,), (_B,)),
    "pmd_none": Signature((_N,), (_B,)), "pmd_huge": Signature((_N,), (_B,)), "pmd_linked": Signature((_N,), (_B,)),
    "pmd_frame": Signature((_N,), (_F,)), "pmd_writable": Signature((_N,), (_B,)), "table_at": Signature((_N,), (_T,)),
    "zero_page": Signature((), (_F,)), "tlb_start": Signature((), (_N,)), "tlb_end": Signature((), (_N,)),
    "freed": Signature((_F,), (_B,)), "table_freed": Signature((_T,), (_B,)),
    "maps": Signature((_N, _F), (_B,)), "links": Signature((_N, _T), (_B,)),
    "has": Signature(("cache", _N), (_B,), where="device"),
    "assertion_failed": Signature((), (_B,), where="property"), "slept_in_atomic": Signature((), (_B,), where="property"),
    "cached": Signature(("device", _N, _F), (_B,), where="property"),
    "cached_writable": Signature(("device", _N, _F), (_B,), where="property"),
    "table_cached": Signature(("device", _N, _T), (_B,), where="property"),
}  # fmt: skip

ADDRESS_SPACE = "mm"
"""Whose the variables are that `shared` declares: they have it as their device, and no device has this name."""

STEP_PARAM_NAMES = {"tlb_track": ("start", "end"), "assume_none_outside": ("addr", "start", "end")}
"""Parameter names that matter to a check: a ``start, end`` pair must not run backwards."""

OF_THE_WORLD = frozenset({"vmm", "vmm1", "vmm2", "page", "region", "frame", "table", "lock", "event", "crowd", "alive", "own"})
"""What a state calls its parts: no device and no lock has such a name."""
OF_THREADS = frozenset({"pc", "rounds", "atomic", "at", "tlb_start", "tlb_end", "queued", "pending", "added"})
"""What a state keeps of a thread beside its variables."""

RESERVED = frozenset(STEPS) | frozenset(LOOKS) | frozenset(CONSTANTS) | {"nondet", "page_table", ADDRESS_SPACE}
