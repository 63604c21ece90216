"""Which steps anybody else could notice. Between the others nothing needs to be looked at.

Two reductions, both used by the lowering and by the interpreter. Steps that only read the thread's own variables commute with
everything others may do; so do those with which the path reads the page table, if it alone writes it (not where there are two paths, or
handlers that do: then a look at the table is noticed). A section under a device's lock is one step (Lipton, CACM 1975) as far as it touches
variables and caches that are touched under that lock everywhere; the lock must be one that keeps everybody out: without a key, and not for
reading. No lock keeps a cache from losing an entry, so who asks what it holds is noticed. Taking a lock that another thread takes too can
wait and is a step of its own. What a section fills is seen unless it is the section's last act, and so is every value of a variable that
a property reads. What could mend a breach, or end a run, does not go by unseen behind what could have brought it about. What the
hooks of a still device do, nobody else ever touches, if there is one path; then nobody else touches variables of the address space, either.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmucheck.ir.formulas import CACHE_LOOKS, only_breaks
from mmucheck.ir.program import Const, DeviceVar, Expr, Local, Look, Op, Program, PropertyDecl, Step, System, subexpressions
from mmucheck.machine.state import Thread, contended, threads_of
from mmucheck.machine.world import addresses
from mmucheck.names.builtins import ADDRESS_SPACE

_QUIET = frozenset("nop dispatch split_page assign branch assume tlb_gather tlb_track tlb_queue tlb_queue_table".split())
_GUARDED = frozenset("set_var drop fill assign branch".split())
_MENDS = frozenset("drop fill assume".split())
_NEUTRAL = _QUIET | frozenset("unlock wait".split())
_EVENTS = frozenset({"assertion_failed", "slept_in_atomic"})
MOST_STEP = 1 << 30
"""Bytes by which a `for` may go on to be taken to end: it does not come round within 2^64."""
_OPEN_LOOKS = frozenset("has freed table_freed".split())

Resource = tuple[str, str]


class Visibility:
    """The answer for every node of every thread of a system. ``put_off``: (thread, node) of reads that may as well happen later, so that
    nobody needs to see what they would in the middle of a section."""

    def __init__(self, system: System, properties: Iterable[PropertyDecl] = (),
                 put_off: frozenset[tuple[str, int]] = frozenset()) -> None:  # fmt: skip
        properties = tuple(properties)
        self._watched = frozenset(n for p in properties for n in variables(p.formula))
        threads = threads_of(system)
        self._still = frozenset(d.name for d in system.devices if d.still)
        self._device_locks = frozenset(lock.name for d in system.devices for lock in d.locks)
        self._keyed = frozenset(lock.name for d in system.devices for lock in d.locks if lock.key)
        self._spinlocks = frozenset(k.name for k in (*system.locks, *(x for d in system.devices for x in d.locks)) if k.kind == "spinlock")
        self._alone = len(system.threads) == 1
        self._writes_alone = self._alone and not any(changes_table(n.step) for t in threads if t.device for n in t.program.nodes)
        self._loses = any(not only_breaks(p.formula, CACHE_LOOKS) for p in properties)
        self._events = any(isinstance(e, Look) and e.name in _EVENTS for p in properties for e in subexpressions(p.formula))
        self._waited_for = self._device_locks | contended(threads)
        self._held = {t.name: self._locks_held(t.program) for t in threads}
        self._guards = self._common_locks(system, threads, put_off)
        self._visible = {t.name: self._breaches_seen(t, [self._decide(t, i) for i in range(len(t.program.nodes))]) for t in threads}

    def __call__(self, thread: Thread, node: int) -> bool:
        """Whether a device, an unknown holder or a property could notice when exactly the step happens."""
        return self._visible[thread.name][node]

    def _decide(self, thread: Thread, node: int) -> bool:
        step = thread.program.nodes[node].step
        if step.origin.actor in self._still and self._alone and not _frees(step):
            return step.op == "set_var" and step.names[1] in self._watched
        if step.op in ("lock", "unlock"):
            return step.names[0] in self._waited_for and step.op == "lock"
        if addresses(step) and (thread.device or not self._writes_alone):
            return True
        touched = resources(step)
        if self._alone and any(device == ADDRESS_SPACE for device, _ in touched):
            touched = frozenset(r for r in touched if r[0] != ADDRESS_SPACE)
            if step.op == "set_var" and not touched:
                return step.names[1] in self._watched or _frees(step)
        if asks_cache(step):
            return True
        if touched and step.op in _GUARDED and not _frees(step):
            if step.op == "fill" and not self._section_ends(thread.program, node):
                return True
            if step.op == "set_var" and step.names[1] in self._watched:
                return True
            held = self._held[thread.name][node]
            return not all(held & self._guards[r] for r in touched)
        return step.op not in _QUIET or bool(touched) or _frees(step) or not (self._alone or _is_local(step))

    def _breaches_seen(self, thread: Thread, visible: list[bool]) -> list[bool]:
        """The same, and before each step that may mend a breach, or ends the run, if one may have come about since somebody looked."""
        nodes = thread.program.nodes
        while True:
            open_before = [False] * len(nodes)
            changed = True
            while changed:
                changed = False
                for i, node in enumerate(nodes):
                    after = self._may_break(node.step) or (open_before[i] and not visible[i])
                    for s in node.successors if after else ():
                        changed = changed or not open_before[s]
                        open_before[s] = True
            mends = [n.step.op in _MENDS and not self._idle(n.step) for n in nodes]
            ends = self._may_end(thread.program, visible)
            seen = [v or (here and (mend or i in ends)) for i, (v, here, mend) in enumerate(zip(visible, open_before, mends, strict=True))]
            if seen == visible:
                return visible
            visible = seen

    @staticmethod
    def _may_end(program: Program, visible: list[bool]) -> set[int]:
        """The nodes at which a thread may stay for ever unseen: it takes a lock that it may have, or goes round a loop without an end."""
        nodes = program.nodes
        held: list[frozenset[str]] = [frozenset()] * len(nodes)
        work = [program.entry]
        reached = {program.entry}
        while work:
            at = work.pop()
            step, after = nodes[at].step, held[at]
            after = after | {step.names[0]} if step.op == "lock" else after
            for s in nodes[at].successors:
                if s not in reached or not after <= held[s]:
                    reached.add(s)
                    held[s] |= after
                    work.append(s)
        ends = {i for i in reached if nodes[i].step.op == "lock" and nodes[i].step.names[0] in held[i]}
        unseen = {i for i in reached if not visible[i] and not _advances(nodes[i].step)}
        for head in program.back_edge_targets() & unseen:
            found, waiting = set(), [head]
            while waiting:
                for s in nodes[waiting.pop()].successors:
                    if s in unseen and s not in found:
                        found.add(s)
                        waiting.append(s)
            ends |= {head} if head in found else set()
        return ends

    def _idle(self, step: Step) -> bool:
        """Whether it is a step of a device of which nobody asks anything."""
        return self._alone and step.origin.actor in self._still

    def _may_break(self, step: Step) -> bool:
        """Whether a property may hold before the step and not behind it."""
        if step.op == "drop":
            return self._loses
        if step.op == "set_var":
            return step.names[1] in self._watched
        if step.op == "lock":
            return self._events and step.names[0] not in self._spinlocks
        return step.op not in _NEUTRAL

    @staticmethod
    def _section_ends(program: Program, node: int) -> bool:
        """Nothing follows in the section, so what the step did is still there when the section is over."""
        return all(program.nodes[s].step.op == "unlock" for s in program.nodes[node].successors)

    def _locks_held(self, program: Program) -> list[frozenset[str]]:
        """For each node, the device locks held on every way to it that keep everybody else out."""
        held: dict[int, frozenset[str]] = {program.entry: frozenset()}
        work = [program.entry]
        excluding = self._device_locks - self._keyed
        while work:
            node = work.pop()
            step, after = program.nodes[node].step, held[node]
            if step.op in ("lock", "unlock") and step.names[0] in excluding and step.names[1] != "read":
                after = after | {step.names[0]} if step.op == "lock" else after - {step.names[0]}
            for target in program.nodes[node].successors:
                joined = after & held[target] if target in held else after
                if held.get(target) != joined:
                    held[target] = joined
                    work.append(target)
        return [held.get(i, frozenset()) for i in range(len(program.nodes))]

    def _common_locks(self, system: System, threads: tuple[Thread, ...],
                      put_off: frozenset[tuple[str, int]]) -> dict[Resource, frozenset[str]]:  # fmt: skip
        """For each variable and cache, the locks under which every access to it is made."""
        common: dict[Resource, frozenset[str]] = {}
        for thread in threads:
            for index, node in enumerate(thread.program.nodes):
                for resource in resources(node.step) if (thread.name, index) not in put_off else ():
                    common[resource] = common.get(resource, self._device_locks) & self._held[thread.name][index]
        for device in system.devices:
            for cache in device.caches:
                if cache.source:
                    common[device.name, cache.name] = common[device.name, cache.source] = frozenset()
                for expr in subexpressions(cache.when) if cache.when is not None else []:
                    if isinstance(expr, DeviceVar):
                        common[expr.device, expr.name] = frozenset()
        return common


def variables(formula: Expr) -> frozenset[str]:
    """Variables a property reads, of devices and of the address space: every value they take must be seen."""
    looks = (e for e in subexpressions(formula) if isinstance(e, Look) and e.name == "device_var")
    shared = frozenset(e.name for e in subexpressions(formula) if isinstance(e, DeviceVar))
    return shared | frozenset(member.name for look in looks for member in look.args if isinstance(member, Look))


def resources(step: Step) -> frozenset[Resource]:
    """(device, variable or cache) pairs a step reads or writes; the address space is the device of its own variables."""
    found: set[Resource] = set()
    if step.op in ("set_var", "drop", "fill"):
        found.add((step.names[0], step.names[1]))
    for arg in step.args:
        for expr in subexpressions(arg):
            if isinstance(expr, DeviceVar):
                found.add((expr.device, expr.name))
            elif isinstance(expr, Look) and expr.name == "has":
                cache = expr.args[0]
                assert isinstance(cache, Look)
                device, _, name = cache.name.partition(".")
                found.add((device, name))
    return frozenset(found)


def _advances(step: Step) -> bool:
    """Whether it is the step by a constant with which a `for` comes nearer to its end: no statement of an author has such a text."""
    if step.op != "assign" or not step.results or step.origin.text != f"next {step.results[0].partition('.')[0].rstrip(chr(39))}":
        return False
    match step.args[0]:
        case Op(op="+", args=(Local(name=name), Const(value=by))):
            return name == step.results[0] and 0 < by <= MOST_STEP
    return False


def _is_local(step: Step) -> bool:
    """Whether the step looks at nothing that another VMM thread may change."""
    return not any(isinstance(e, Look) for arg in step.args for e in subexpressions(arg))


def _frees(step: Step) -> bool:
    return any(_asks_freed(e) for arg in step.args for e in subexpressions(arg))


def _asks_freed(expr: Expr) -> bool:
    return isinstance(expr, Look) and expr.name in _OPEN_LOOKS and expr.name != "has"


def changes_upper(step: Step) -> bool:
    """Whether the step writes an upper-level entry."""
    return step.op in ("set_pmd", "clear_pmd", "set_pmd_marker", "populate_pmd")


def unlinks(step: Step) -> bool:
    """Whether the step may leave entries in a table that is not linked."""
    return step.op in ("set_pmd", "clear_pmd", "set_pmd_marker", "fill_table")


def changes_table(step: Step) -> bool:
    """Whether the step writes an entry of either level."""
    lower = ("set_pte", "clear_pte", "set_pte_marker", "wrprotect_pte", "mkwrite_pte", "wrprotect_pmd", "mkwrite_pmd")
    return changes_upper(step) or step.op in (*lower, "fill_table", "clear_table")


def losing_matters(threads: Iterable[Thread], properties: Iterable[PropertyDecl]) -> bool:
    """Whether it makes a difference that a cache may lose an entry at any moment: a step, or a property, asks that it holds one."""
    asked = any(asks_cache(n.step) for t in threads for n in t.program.nodes)
    return asked or not all(only_breaks(p.formula, CACHE_LOOKS) for p in properties)


def asks_cache(step: Step) -> bool:
    """Whether the step depends on what a cache holds, so that losing an entry matters."""
    return any(isinstance(e, Look) and e.name == "has" for arg in step.args for e in subexpressions(arg))
