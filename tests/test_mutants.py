"""Break the meaning of one step, one rule or one check at a time: the stated verdicts must notice.

``python tests/test_mutants.py`` prints the table (mutant, killed by).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import run
from mmucheck.analyses.subjects import Obligation
from mmucheck.engines.solver import Limits
from mmucheck.lower import unroll
from mmucheck.lower.unroll import Lowering
from mmucheck.machine.looks import Looks
from mmucheck.machine.steps import Machine
from mmucheck.machine.visibility import Visibility
from mmucheck.names.declarations import check
from mmucheck.names.library import Library
from mmucheck.names.loading import load

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {
    "cow": ("stale_before", "after", "end_keeps_page", "start_too_early", "kvm_before"),
    "properties": (
        "freed_page_fails", "freed_table_fails", "stale_write_fails", "paired_fails", "paired_holds", "sleep_fails", "sleep_holds",
        "failure_fails", "freed_page_holds_for_a_table",
    ),
    "devices": ("right_order", "wrong_order", "no_count", "no_seq", "no_lock", "no_drop", "change_pte_cow"),
    "thp": ("wp_stale_before", "wp_after"),
    "thread_2014": ("end_is_too_late", "empty_table_is_safe_here"),
    "pgtables": ("cpu",),
}  # fmt: skip


def quiet(machine: Any, step: Any, view: Any, thread: Any) -> Any:
    """A step that does nothing."""
    return machine._done()


def short_drop(machine: Any, step: Any, view: Any, thread: Any) -> Any:
    """Drops nothing for a range whose end is the byte behind the entry's page."""
    before = dict(view.state)
    result = ORIGINAL["drop"](machine, step, view, thread)
    if len(step.args) == 2:
        end = machine.looks.value(step.args[1], view)
        for slot in machine.layout.own_pages():
            addr = view.state[f"page.{slot.name}.addr"]
            last = machine.domain.eq(machine.domain.binary("add", addr, machine.domain.const(1, 64)), end)
            for key, old in before.items():
                if key.endswith(f".{slot.name}.valid") and view.state[key] is not old:
                    view.state[key] = machine.domain.or_(view.state[key], machine.domain.and_(last, old))
    return result


ORIGINAL: dict[str, Any] = {"drop": Machine._step_drop}
STEPS = (
    "set_pte clear_pte wrprotect_pte set_pmd clear_pmd clear_table get_page put_page put_table drop fill set_var lock might_sleep assert "
    "assume_none_outside"
).split()
MUTANTS: dict[str, tuple[object, str, object]] = {
    **{f"{name} does nothing": (Machine, f"_step_{name}", quiet) for name in STEPS},
    "a range misses its last byte": (Machine, "_step_drop", short_drop),
    "frames are never freed": (Looks, "slot_freed", lambda self, state, what, slot: self.false),
    "devices never fill by themselves": (Machine, "fills", lambda self: []),
    "nothing happens between steps": (Lowering, "_closure", lambda self, state, guard, result: None),
    "handlers never run": (Lowering, "_advance", lambda self, handler, state, guard, result: None),
    "no step is seen to be taken": (unroll.Unrolling, "take", lambda self, act, when: None),
    "every step is invisible": (Visibility, "__call__", lambda self, thread, node: False),
    "properties are not asked": (unroll, "violated", lambda machine, prop, state: machine.domain.not_(machine.looks.true)),
}

SURVIVORS = {
    "unknown holders never let go": "a run in which a holder lets go later is matched by one in which it was never there at the start",
}
"""Mutants that no stated verdict can notice, and why."""


@contextmanager
def mutated(owner: object, name: str, replacement: object) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def stated() -> tuple[Library, list[Obligation]]:
    library = load([ROOT / "specs" / f"{name}.mmu" for name in CHECKS])
    check(library)
    every = obligations(library, library.specs.values())
    return library, [o for o in every if o.span is not None and o.check in CHECKS.get(Path(o.span.file).stem, ())]


def first_notice(library: Library, wanted: list[Obligation], seconds: int = 60) -> str:
    """The first obligation whose verdict is not the stated one; "" if none is."""
    seen: set[str] = set()
    for obligation in wanted:
        group = [o for o in wanted if o.subject == obligation.subject]
        if str(obligation.subject) in seen:
            continue
        seen.add(str(obligation.subject))
        try:
            results = run(Builder(library), group, Limits(timeout=seconds))
        except Exception as error:
            return f"{obligation.check}: {type(error).__name__}"
        for result in results:
            if not result.as_expected:
                what = result.decision.verdict if result.decision else "internal error"
                return f"{result.obligation.spec}::{result.obligation.check} {result.obligation.property}: {what}"
    return ""


@pytest.fixture(scope="module")
def chosen() -> tuple[Library, list[Obligation]]:
    return stated()


def test_the_chosen_checks_hold_unmutated(chosen: tuple[Library, list[Obligation]]) -> None:
    assert first_notice(*chosen, 300) == ""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_noticed(chosen: tuple[Library, list[Obligation]], mutant: str) -> None:
    with mutated(*MUTANTS[mutant]):
        assert first_notice(*chosen) != "", "no stated verdict changes"


def main(show: Callable[[str], None] = print) -> None:
    chosen_now = stated()
    for name, mutation in MUTANTS.items():
        with mutated(*mutation):
            show(f"{name:36} {first_notice(*chosen_now) or 'SURVIVES'}")
    for name, reason in SURVIVORS.items():
        show(f"{name:36} survives: {reason}")


if __name__ == "__main__":
    main()
