"""A replayed refutation as plain values: numbered steps with actor, place and what changed. Reports draw it."""

from __future__ import annotations

from mmucheck.ir.program import Look, System, subexpressions
from mmucheck.machine.domain import Concrete
from mmucheck.machine.looks import Looks
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, State
from mmucheck.names.builtins import ADDRESS_SPACE
from mmucheck.records import record
from mmucheck.replay.explore import Event, Violation
from mmucheck.replay.world import layout_of


@record
class Change:
    """``what``: entry, table entry, reference count or cache by its shown name; values as shown."""

    what: str
    before: str
    after: str


@record
class TraceStep:
    """``actor``: a thread, a device, or ``others``. ``calls``: the macros around the step, outermost first. ``file`` and ``line`` of
    the step itself; ``source``: the outermost line, in the path."""

    number: int
    actor: str
    action: str
    file: str
    line: int
    calls: tuple[str, ...]
    source: str
    changes: tuple[Change, ...]


@record
class Trace:
    """``start``: what holds before the first step; ``why``: one sentence on what is broken; ``columns``: shown name of each thing
    whose state matters, in a fixed order."""

    start: tuple[tuple[str, str], ...]
    steps: tuple[TraceStep, ...]
    why: str
    witness: tuple[tuple[str, str], ...]


def trace_of(system: System, violation: Violation) -> Trace:
    """The violation for reports."""
    namer = _Namer(system, violation)
    steps: list[TraceStep] = []
    for event in violation.events:
        changes = namer.changes(event.before, event.after)
        steps.append(_step(len(steps) + 1, event, changes))
    witness = tuple((name, namer.bound(name, value)) for name, value in violation.witness.items())
    shown = namer.show(violation.start)
    return Trace(tuple(shown.items()), tuple(steps), namer.why(violation), witness)


def _step(number: int, event: Event, changes: tuple[Change, ...]) -> TraceStep:
    if event.step is None:
        return TraceStep(number, event.actor, event.action, "", 0, (), "", changes)
    origin = event.step.origin
    outer = origin.frames[0].called_at if origin.frames else origin.span
    source = f"{outer.file}:{outer.line}"
    calls = tuple(f.name for f in origin.frames)
    text = origin.text
    if event.way is not None:
        yes, no = ("yes", "no") if event.step.op == "branch" else ("", "fails")
        said = no if event.way else yes
        text = text.split(" else ")[0] + (f": {said}" if said else "")
    return TraceStep(number, event.actor, text, origin.span.file, origin.span.line, calls, source, changes)


class _Namer:
    """Names and values as a reader wants them: addresses, `frame 1`, `freed`, `1 rw`."""

    def __init__(self, system: System, violation: Violation) -> None:
        self.system, self.violation = system, violation
        self.layout = layout_of(violation.scenario)
        self.looks = Looks(Concrete(), system, self.layout)
        self._used = self._mentioned(violation)

    def _mentioned(self, violation: Violation) -> dict[str, set[str]]:
        """Frames, tables, pages and regions that matter: of the witness, or changed on the way."""
        used: dict[str, set[str]] = {"frame": set(), "table": set()}
        for kind, name in (("frame", "frame"), ("table", "table")):
            for binder, what in violation.property.binders:
                if what == kind:
                    used[name].add(str(violation.witness[binder]))
        for event in violation.events:
            for key, value in event.after.items():
                if event.before.get(key) != value:
                    parts = key.split(".")
                    if parts[0] in used:
                        used[parts[0]].add(parts[1])
        reads = {e.name for e in subexpressions(violation.property.formula) if isinstance(e, Look)}
        if not reads & {"table_cached", "table_freed", "links", "table_at"}:
            used["table"] = {t for t in used["table"] if self._table_changes(violation, t)}
        return used

    @staticmethod
    def _table_changes(violation: Violation, table: str) -> bool:
        return any(event.before.get(f"table.{table}.refs") != event.after.get(f"table.{table}.refs") for event in violation.events)

    def show(self, state: State[int]) -> dict[str, str]:
        """Every shown thing with its value."""
        shown: dict[str, str] = {}
        lower, upper = self.system.levels
        for region in self.layout.regions:
            kind = state[f"region.{region.name}.kind"]
            text = {0: "none", 3: "marked"}.get(kind, "")
            if kind == PMD_TABLE:
                text = f"table {state[f'region.{region.name}.table']}"
            elif kind == PMD_HUGE:
                text = f"huge frame {state[f'region.{region.name}.frame']} {_mode(state[f'region.{region.name}.write'])}"
            shown[f"{upper} {state[f'region.{region.name}.key']:#x}"] = text
        for page in self.layout.pages:
            kind = state[f"page.{page.name}.kind"]
            text = {0: "none", 2: "marked"}.get(kind, "")
            if kind == PTE_PRESENT:
                text = f"frame {state[f'page.{page.name}.frame']} {_mode(state[f'page.{page.name}.write'])}"
            shown[f"{lower} {state[f'page.{page.name}.key']:#x}"] = text
        for what in ("frame", "table"):
            for name in sorted(self._used[what], key=int):
                if f"{what}.{name}.refs" in state:
                    shown[f"refs of {what} {name}"] = self._references(state, what, name)
        for device in self.system.devices:
            for cache in device.caches:
                for slot in self.layout.pages if cache.of == "pages" else self.layout.regions:
                    entry = f"{device.name}.{cache.name}.{slot.name}"
                    if f"{entry}.valid" not in state:
                        continue  # left out of the run: see mmucheck.lower.mixes
                    address = state[f"{'page' if cache.of == 'pages' else 'region'}.{slot.name}.key"]
                    text = "-"
                    if state[f"{entry}.valid"]:
                        text = f"table {state[f'{entry}.table']}" if cache.of == "tables" else (
                            f"frame {state[f'{entry}.frame']} {_mode(state[f'{entry}.write'])}"
                        )
                    shown[f"{device.name}.{cache.name} {address:#x}"] = text
            for name, _ in device.variables:
                if f"{device.name}.{name}" in state:
                    shown[f"{device.name}.{name}"] = str(state[f"{device.name}.{name}"])
        for name, _ in self.system.shared:
            shown[f"{ADDRESS_SPACE}.{name}"] = str(state[f"{ADDRESS_SPACE}.{name}"])
        return shown

    def _references(self, state: State[int], what: str, name: str) -> str:
        refs, others = state[f"{what}.{name}.refs"], state[f"{what}.{name}.others"]
        if not refs and not others:
            return "freed"
        return f"{refs}+unknown" if others else str(refs)

    def changes(self, before: State[int], after: State[int]) -> tuple[Change, ...]:
        old, new = self.show(before), self.show(after)
        return tuple(Change(k, old[k], new[k]) for k in new if old[k] != new[k])

    def bound(self, name: str, value: int | str) -> str:
        kind = dict(self.violation.property.binders)[name]
        return f"{value:#x}" if kind == "address" and isinstance(value, int) else str(value)

    def why(self, violation: Violation) -> str:
        """The broken property in this run's values."""
        names = {n: self.bound(n, v) for n, v in violation.witness.items()}
        device = next((names[n] for n, k in violation.property.binders if k == "device"), "")
        address = next((names[n] for n, k in violation.property.binders if k == "address"), "")
        frame = next((names[n] for n, k in violation.property.binders if k == "frame"), "")
        state = violation.events[-1].after if violation.events else violation.start
        held = (text for key, text in self.show(state).items() if key.startswith(f"{device}."))
        entry = next((text for text in held if text.startswith(f"frame {frame}")), "")
        holds = f"{device} holds {entry} for {address}" if entry else f"for {', '.join(f'{n} = {v}' for n, v in names.items())}"
        return f"{holds}; violated: {violation.property.title or violation.property.name}"


def _mode(write: int) -> str:
    return "rw" if write else "ro"
