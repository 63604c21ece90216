"""The atomic steps, and runs of one program up to the next step that anybody else could notice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from mmucheck.ir.program import Const, Local, Look, Nondet, Program, Step, System, subexpressions

from .state import (
    ASSERTION,
    MARKER,
    NONE,
    NOWHERE,
    SLEPT,
    TABLE,
    VIRGIN,
    ZERO,
    Caches,
    Core,
    Gather,
    OracleError,
    Places,
    Proc,
    Value,
    compile_expr,
    looks_in,
)  # fmt: skip

Effect = tuple[tuple[int, int], ...]
"""What a step does to the caches: (slot, new content)."""

QUIET = {"assign", "branch", "assume", "assert", "nop", "dispatch", "might_sleep", "tlb_gather", "tlb_track", "tlb_queue",
         "tlb_queue_table"}  # fmt: skip
ENTRIES = {"set_pte", "clear_pte", "set_pte_marker", "wrprotect_pte", "mkwrite_pte", "set_pmd", "clear_pmd", "set_pmd_marker",
           "wrprotect_pmd", "mkwrite_pmd", "fill_table", "clear_table", "populate_pmd"}  # fmt: skip
BLIND = ENTRIES | {"get_page", "put_page", "get_table", "put_table", "tlb_free_pages", "tlb_free_tables", "set_var"}
"""Steps that write without looking: nobody notices one that changes nothing anybody looks at (see ``_noticed``)."""
SHARED_LOOKS = {"freed", "table_freed", "has", "device_var", "."}
BLIND_LOOKS = {"zero_page", "tlb_start", "tlb_end"}
MANY = 5
"""References on one frame or table that are kept apart in a crowd, where a path that leaks them may run for ever."""


class Code(NamedTuple):
    step: Step
    args: tuple[Value, ...]
    choices: tuple[dict[str, int], ...]
    results: tuple[int, ...]
    successors: tuple[int, ...]
    dead: tuple[tuple[int, ...], ...]
    quiet: bool
    blind: bool
    needs_caches: bool
    spins: int


class Machine:
    """The programs of a system: threads first, then the handlers of each device (one run at a time for each device). In a crowd two
    threads run any of the paths again and again; runs in which more than MANY references on one thing are known are left out, which
    ``leaked`` tells.
    ``reduced``: run steps that nobody notices without a stop; if not, stop after every step and let handlers run at every page."""

    def __init__(self, system: System, places: Places, reduced: bool = True) -> None:
        self.reduced = reduced
        self.system, self.w = system, places
        self.threads = 2 if system.crowd else len(system.threads)
        self.devices = [d for d in system.devices if d.handlers]
        self.programs: list[Program] = list(system.threads)
        self.handlers: list[list[int]] = []
        for device in self.devices:
            self.handlers.append([len(self.programs) + i for i in range(len(device.handlers))])
            self.programs.extend(device.handlers)
        locks = (*system.locks, *(x for d in system.devices for x in d.locks))
        self.granules = {lock.name: lock.granule for lock in locks}
        self.spinning = {lock.name for lock in locks if lock.kind == "spinlock"}
        self.contended = self._contended()
        self.notes: set[str] = set()
        self.leaked = False
        self.uneven = False
        self.ran: set[tuple[int, int]] = set()
        self.watched_pages: tuple[int, ...] = ()
        self.watched_regions: tuple[int, ...] = ()
        self.handlers_write = any(n.step.op == "set_var" for d in self.devices for h in d.handlers for n in h.nodes)
        parts = [n.step for d in self.devices for h in d.handlers for n in h.nodes]
        self.handlers_map = any(s.op in ENTRIES for s in parts)
        self.handlers_stray = any(_strays(h) for d in self.devices for h in d.handlers)
        self.steady_vars = self.threads == 1 and not self.handlers_write
        self.live = [_liveness(p) for p in self.programs]
        self.code = [self._compile(i, p) for i, p in enumerate(self.programs)]

    def _contended(self) -> set[str]:
        users: dict[str, set[int]] = {}
        for i, program in enumerate(self.programs):
            for node in program.nodes:
                if node.step.op == "lock":
                    owner = next((self.threads + k for k, ids in enumerate(self.handlers) if i in ids), i)
                    users.setdefault(node.step.names[0], set()).add(owner)
        return {name for name, who in users.items() if len(who) > 1 or (self.system.crowd and min(who) < len(self.system.threads))}

    def watch(self) -> tuple[int, ...]:
        """Forget what was known of the places, after a change. The pages at which handlers run: those of the witnesses, unless
        handlers write variables, since a run elsewhere then leaves nothing behind."""
        self.uneven = False
        everywhere = self.handlers_write or self.handlers_map or self.handlers_stray or not self.reduced
        pages = [p * self.w.page for p in self.w.pages if everywhere or any(x // self.w.page == p for x in self.w.witnesses)]
        self.watched_pages = tuple(self.w.pages[p // self.w.page] for p in pages)
        self.watched_regions = tuple({self.w.regions[p // self.w.region] for p in pages})
        return tuple(pages)

    # ---- compiling

    def _compile(self, number: int, program: Program) -> list[Code]:
        names = {name: i for i, name in enumerate(program.locals)}
        live = self.live[number]
        found = []
        for i, node in enumerate(program.nodes):
            step = node.step
            looks = set().union(*(looks_in(a) for a in step.args))
            if number < self.threads == 1 and not self.handlers_map:
                private = not looks & (SHARED_LOOKS - ({"."} if self.steady_vars else set()))
            else:
                private = looks <= BLIND_LOOKS
            quiet = private and (step.op in QUIET or (step.op in ("lock", "unlock") and step.names[0] not in self.contended))
            labels = dict.fromkeys(e.label for a in step.args for e in subexpressions(a) if isinstance(e, Nondet))
            spins = {"lock": 1, "unlock": -1}.get(step.op, 0) if step.names and step.names[0] in self.spinning else 0
            blind = private and (step.op == "drop" or (self.threads == 1 and step.op in BLIND))
            choices = tuple(dict(zip(labels, c, strict=True)) for c in product((0, 1), repeat=len(labels)))
            found.append(Code(step, tuple(compile_expr(a, names, self.w) for a in step.args), choices,
                              tuple(names[r] for r in step.results), node.successors,
                              tuple(tuple(names[x] for x in (*live[i], *step.results) if x not in live[s]) for s in node.successors),
                              quiet, blind, "has" in looks, spins))  # fmt: skip
        return found

    def code_of(self, core: Core, pid: int) -> Code | None:
        """The next step of a process; None if it has nothing to do."""
        proc = core.procs[pid]
        if proc is None or proc.pc == self.programs[proc.program].exit:
            return None
        return self.code[proc.program][proc.pc]

    def ran_all(self, op: str) -> bool:
        """Has every such step of the threads run?"""
        return all((i, pc) in self.ran for i, p in enumerate(self.programs) for pc, n in enumerate(p.nodes) if n.step.op == op)

    def begun(self, core: Core, pid: int, program: int, values: dict[str, int]) -> set[Core]:
        """A run begins, if its first requirement holds: nobody can tell one that waits for it from one that has not begun."""
        core = self.begin(core, pid, program, values)
        code = self.code_of(core, pid)
        if code is None or code.step.op != "assume" or code.needs_caches:
            return self.settle(core, pid)
        return {settled for after, _ in self.step(core, pid, code, ()) for settled in self.settle(after, pid)}

    def renamed(self, core: Core) -> tuple[Core, tuple[int, ...], tuple[int, ...]]:
        """A state of a crowd with its threads in order, and its frames and tables numbered in order of appearance as far as that goes;
        the new numbers of both. No property and no step tells the states apart."""
        procs, locks = core.procs, core.locks
        if self._place(procs[1]) < self._place(procs[0]):
            procs = (procs[1], procs[0], *procs[2:])
            locks = tuple(sorted((n, k, m, 1 - pid if pid < 2 else pid) for n, k, m, pid in locks))
        frames: dict[int, int] = {ZERO: ZERO}
        tables: dict[int, int] = {}
        met_frames = [x >> 1 for x in (*core.ptes, *core.pmds) if 0 <= x < TABLE]
        met_tables = [x - TABLE for x in core.pmds if x >= TABLE]
        for proc in procs:
            if proc is not None:
                kinds = self.programs[proc.program].locals.values()
                met_frames += [v for v, kind in zip(proc.locals, kinds, strict=True) if kind == "frame"]
                met_tables += [v for v, kind in zip(proc.locals, kinds, strict=True) if kind == "table"]
                met_frames += proc.gather.frames
                met_tables += proc.gather.tables
        for numbers, met, pool in ((frames, met_frames, core.frames), (tables, met_tables, core.tables)):
            rest = sorted(range(len(pool)), key=lambda i: (pool[i] == VIRGIN, i))
            for i in (*met, *rest):
                if i < len(pool):
                    numbers.setdefault(i, len(numbers))
        if all(k == v for k, v in (*frames.items(), *tables.items())):
            return core._replace(procs=procs, locks=locks), (), ()
        new_frames, new_tables = tuple(frames[i] for i in range(len(frames))), tuple(tables[i] for i in range(len(tables)))

        def entry(x: int) -> int:
            return x if x < 0 else TABLE + tables[x - TABLE] if x >= TABLE else 2 * frames[x >> 1] + (x & 1)

        def proc_(proc: Proc | None) -> Proc | None:
            if proc is None:
                return None
            kinds = self.programs[proc.program].locals.values()
            given = {"frame": frames, "table": tables}
            values = tuple(given[k].get(v, v) if k in given else v for v, k in zip(proc.locals, kinds, strict=True))
            g = proc.gather
            gather = g._replace(frames=tuple(sorted(frames[f] for f in g.frames)), tables=tuple(sorted(tables[t] for t in g.tables)))
            return proc._replace(locals=values, gather=gather)

        return core._replace(
            procs=tuple(map(proc_, procs)), locks=locks, ptes=tuple(map(entry, core.ptes)), pmds=tuple(map(entry, core.pmds)),
            frames=_permuted(core.frames, new_frames), tables=_permuted(core.tables, new_tables),
        ), new_frames, new_tables  # fmt: skip

    @staticmethod
    def _place(proc: Proc | None) -> tuple[object, ...]:
        return () if proc is None else proc

    def begin(self, core: Core, pid: int, program: int, values: dict[str, int]) -> Core:
        p = self.programs[program]
        start = tuple(values.get(name, 0) if name in self.live[program][p.entry] else 0 for name in p.locals)
        return _with(core, pid, Proc(program, p.entry, start))

    # ---- running

    def settle(self, core: Core, pid: int) -> set[Core]:
        """Run steps that nobody else can notice or disturb. Single writer: what only this thread writes, it may look at freely."""
        stack, out, seen = [core], set[Core](), {core}
        while stack:
            at = stack.pop()
            code = self.code_of(at, pid)
            if code is None:
                out.add(self._retire(at, pid))
                continue
            if code.needs_caches or (not self.reduced and code.step.op != "assume"):
                out.add(at)
                continue
            nexts = None
            if code.quiet:
                nexts = [c for c, _ in self.step(at, pid, code, ())]
            elif code.blind:
                results = list(self.step(at, pid, code, ()))
                if results and not any(effect or self._noticed(at, c) for c, effect in results):
                    nexts = [c for c, _ in results]
            if nexts is None:
                out.add(at)
                continue
            for c in nexts:
                if c not in seen:
                    seen.add(c)
                    stack.append(c)
        return out

    def _noticed(self, a: Core, b: Core) -> bool:
        """Could a device, a handler or a property tell the two states apart, or stand between the steps that lead from one to
        the other? Devices and handlers look at the entries of watched pages only; each run of a handler holds one reference."""
        if (a.locks, a.variables) != (b.locks, b.variables):
            return True
        if any(a.ptes[i] != b.ptes[i] for i in self.watched_pages) or any(a.pmds[i] != b.pmds[i] for i in self.watched_regions):
            return True
        few = 2 + 2 * len(self.devices)
        return any(x != y and min(x, y) < few for x, y in zip(a.frames + a.tables, b.frames + b.tables, strict=True))

    def _retire(self, core: Core, pid: int) -> Core:
        proc = core.procs[pid]
        if proc is None:
            return core
        if pid >= self.threads or self.system.crowd:
            return _with(core, pid, None)
        return _with(core, pid, Proc(proc.program, proc.pc, (0,) * len(proc.locals)))

    def step(self, core: Core, pid: int, code: Code, caches: Caches) -> Iterator[tuple[Core, Effect]]:
        """Every outcome of the next step of a process: none if it is blocked or cut off."""
        proc = core.procs[pid]
        assert proc is not None
        if code.quiet and code.step.op == "branch":
            for nondet in code.choices:
                taken = 0 if code.args[0](core, proc, caches, nondet) else 1
                kept = proc.locals
                if code.dead[taken]:
                    kept = tuple(0 if i in code.dead[taken] else v for i, v in enumerate(kept))
                yield _with(core, pid, Proc(proc.program, code.successors[taken], kept, proc.gather, proc.spins)), ()
            return
        for nondet in code.choices:
            args = [f(core, proc, caches, nondet) for f in code.args]
            for after, gather, results, taken, effect in self._outcomes(core, proc, pid, code.step, args):
                if self.system.crowd and max(*after.frames, *after.tables) > 2 * MANY + 1:
                    self.leaked = True
                    continue
                values = list(proc.locals)
                for where, value in zip(code.results, results, strict=False):
                    values[where] = value
                for where in code.dead[taken]:
                    values[where] = 0
                spins = proc.spins + code.spins
                yield _with(after, pid, Proc(proc.program, code.successors[taken], tuple(values), gather, spins)), effect

    def _outcomes(self, core: Core, proc: Proc, pid: int, step: Step, args: list[int]
                  ) -> Iterator[tuple[Core, Gather, tuple[int, ...], int, Effect]]:  # fmt: skip
        g, op = proc.gather, step.op
        match op:
            case "assign":
                yield core, g, (self._next_page(step, args[0]),), 0, ()
            case "branch":
                yield core, g, (), 0 if args[0] else 1, ()
            case "assume" | "wait":
                if args[0]:
                    yield core, g, (), 0, ()
            case "assume_none_outside":
                if not any(self._is_outside(core, page, *args) for page in self.w.pages):
                    yield core, g, (), 0, ()
            case "assert":
                yield core if args[0] else core._replace(flags=core.flags | ASSERTION), g, (), 0, ()
            case "might_sleep":
                yield core._replace(flags=core.flags | SLEPT) if proc.spins else core, g, (), 0, ()
            case "nop" | "dispatch" | "split_page":
                yield core, g, (), 0, ()  # split_page: with one tracked page in the region, the huge frame and the part are one
            case "lock":
                locked = self._lock(core, pid, step, args)
                if locked is not None:
                    sleeps = proc.spins and step.names[0] not in self.spinning
                    yield locked._replace(flags=locked.flags | SLEPT) if sleeps else locked, g, (), 0, ()
            case "unlock":
                mine = (step.names[0], self._key(step, args), step.names[1], pid)
                yield core._replace(locks=tuple(x for x in core.locks if x != mine)), g, (), 0, ()
            case "set_var":
                i = self.w.variables[step.names[0], step.names[1]]
                happens = len(args) < 2 or args[1]
                yield core._replace(variables=_put(core.variables, i, args[0])) if happens else core, g, (), 0, ()
            case "drop":
                yield core, g, (), 0, self._drop(step, args)
            case "fill":
                here = args[0] // self.w.page
                mine2 = [i for i, s in enumerate(self.w.slots) if (s.device, s.cache) == step.names and s.address // self.w.page == here]
                yield core, g, (), 0, tuple((i, 2 * self._frame(args[1], step) + args[2]) for i in mine2)
            case "get_page" | "put_page":
                yield self._count(core, self._frame(args[0], step), 1 if op == "get_page" else -1, step), g, (), 0, ()
            case "get_table" | "put_table":
                yield self._count_table(core, args[0], 1 if op == "get_table" else -1, step), g, (), 0, ()
            case "alloc_page" | "alloc_huge_page" | "alloc_table":
                yield core, g, (), 1, ()
                pool = core.tables if op == "alloc_table" else core.frames
                virgin = [i for i, x in enumerate(pool) if x == VIRGIN][:1]
                for i in [i for i, x in enumerate(pool) if x == 0 and (op == "alloc_table" or i != ZERO)] + virgin:
                    taken = _put(pool, i, 2)
                    yield core._replace(tables=taken) if op == "alloc_table" else core._replace(frames=taken), g, (i,), 0, ()
            case "get_user_page":
                entry = self.w.walk(core, args[0])
                if entry < 0:
                    yield core, g, (), 1, ()
                else:
                    yield self._count(core, entry >> 1, 1, step), g, (entry >> 1, entry & 1), 0, ()
            case "tlb_gather":
                yield core, Gather(args[0], args[1]), (), 0, ()
            case "tlb_track":
                yield core, g._replace(start=min(g.start, args[0]), end=max(g.end, args[1])), (), 0, ()
            case "tlb_queue":
                yield core, g._replace(frames=tuple(sorted((*g.frames, self._frame(args[0], step))))), (), 0, ()
            case "tlb_queue_table":
                yield core, g._replace(tables=tuple(sorted((*g.tables, args[0])))), (), 0, ()
            case "tlb_free_pages":
                for f in g.frames:
                    core = self._count(core, f, -1, step)
                yield core, g._replace(frames=()), (), 0, ()
            case "tlb_free_tables":
                for t in g.tables:
                    core = self._count_table(core, t, -1, step)
                yield core, g._replace(tables=()), (), 0, ()
            case _ if op in ENTRIES:
                self.ran.add((proc.program, proc.pc))
                yield self._entry(core, op, args), g, (), 0, ()
            case _:
                raise OracleError(f"unknown step {op}")

    # ---- the parts of a step

    def _next_page(self, step: Step, value: int) -> int:
        """Where a loop over pages goes on: of the untracked pages between tracked ones it visits the first, and the last of a region."""
        if not step.origin.text.startswith("next ") or Const(self.w.page) not in getattr(step.args[0], "args", ()):
            return value
        page, many = value // self.w.page, self.w.region // self.w.page
        if page in self.w.pages or page - 1 in self.w.pages or page % many == 0:
            return value
        return min([page // many * many + many - 1, *(p for p in self.w.pages if p > page)]) * self.w.page

    def _is_outside(self, core: Core, page: int, addr: int, start: int, end: int) -> bool:
        """Is there an entry of a page that shares its table with an address, and that does not touch [start, end)?"""
        at = page * self.w.page
        same = at // self.w.region == addr // self.w.region
        return same and core.ptes[self.w.pages[page]] != NONE and not (start < at + self.w.page and at < end)

    def _key(self, step: Step, args: list[int]) -> int:
        return args[0] // (self.granules[step.names[0]] or 1) if args else 0

    def _lock(self, core: Core, pid: int, step: Step, args: list[int]) -> Core | None:
        name, mode, key = step.names[0], step.names[1], self._key(step, args)
        if name not in self.contended:
            return core
        for held, at, how, _ in core.locks:
            if (held, at) == (name, key) and not how == mode == "read":
                return None
        return core._replace(locks=tuple(sorted((*core.locks, (name, key, mode, pid)))))

    def _drop(self, step: Step, args: list[int]) -> Effect:
        found = []
        for i, s in enumerate(self.w.slots):
            if (s.device, s.cache) != step.names:
                continue
            size = 1 if s.of == "pages" else self.w.region
            self.uneven |= any(edge % self.w.page and edge // self.w.page == s.address // self.w.page for edge in args)
            if not args or (args[0] < args[1] and args[0] < s.address + size and s.address < args[1]):
                found.append((i, -1))
        return tuple(found)

    def _frame(self, f: int, step: Step) -> int:
        if f == NOWHERE and self.threads > 1:
            return ZERO  # the other thread has just cleared the entry: nobody counts what is not there
        if f == NOWHERE:
            raise OracleError(f"{step.op} of no frame at {step.origin.span.file}:{step.origin.span.line}")
        return f

    def _count(self, core: Core, f: int, by: int, step: Step) -> Core:
        return core if f == ZERO else core._replace(frames=_put(core.frames, f, self._counted(core.frames[f], by, step)))

    def _count_table(self, core: Core, t: int, by: int, step: Step) -> Core:
        if t == NOWHERE and self.threads > 1:
            return core  # as for frames
        return core._replace(tables=_put(core.tables, t, self._counted(core.tables[t], by, step)))

    def _counted(self, holders: int, by: int, step: Step) -> int:
        if holders == VIRGIN or (by < 0 and holders < 2):
            self.notes.add(f"{step.op} without a reference at {step.origin.span.file}:{step.origin.span.line}")
            return max(holders, 0) if by < 0 else 2
        return holders + 2 * by

    def _entry(self, core: Core, op: str, args: list[int]) -> Core:
        page, region = self.w.pages.get(args[0] // self.w.page), self.w.regions.get(args[0] // self.w.region)
        value = 2 * args[1] + args[2] if len(args) == 3 else 0
        if op in ("fill_table", "clear_table"):
            new = value if op == "fill_table" else NONE
            return core._replace(ptes=tuple(new if r == region else x for x, r in zip(core.ptes, self.w.home, strict=True)))
        lower = op.endswith("_pte") or op == "set_pte_marker"
        where = page if lower else region
        if where is None:
            return core
        old = core.ptes[where] if lower else core.pmds[where]
        if op in ("set_pte", "set_pmd"):
            new = value
        elif op in ("clear_pte", "clear_pmd"):
            new = NONE
        elif op.endswith("_marker"):
            new = MARKER
        elif op == "populate_pmd":
            new = TABLE + args[1]
        else:  # wrprotect, mkwrite
            present = 0 <= old < TABLE
            new = old if not present else old & ~1 if op.startswith("wrprotect") else old | 1
        if lower:
            return core._replace(ptes=_put(core.ptes, where, new))
        return core._replace(pmds=_put(core.pmds, where, new))


def _strays(handler: Program) -> bool:
    """Does a handler look at or fill another address than a parameter?"""
    given = {name for name, _ in handler.params}
    named = [n.step.args[0] for n in handler.nodes if n.step.op in ENTRIES | {"get_user_page", "fill"}]
    looks = [e for n in handler.nodes for a in n.step.args for e in subexpressions(a) if isinstance(e, Look)]
    named += [arg for look in looks for arg in look.args if not isinstance(arg, Look)]
    return any(not isinstance(a, Local) or a.name not in given for a in named)


def _permuted(values: tuple[int, ...], numbers: tuple[int, ...]) -> tuple[int, ...]:
    found = list(values)
    for old, new in enumerate(numbers):
        found[new] = values[old]
    return tuple(found)


def _put(values: tuple[int, ...], i: int, new: int) -> tuple[int, ...]:
    return (*values[:i], new, *values[i + 1 :])


def _with(core: Core, pid: int, proc: Proc | None) -> Core:
    procs, ptes, pmds, frames, tables, locks, variables, flags = core
    return Core((*procs[:pid], proc, *procs[pid + 1 :]), ptes, pmds, frames, tables, locks, variables, flags)


def _liveness(program: Program) -> list[set[str]]:
    """For each node, which locals are still looked at from there on: the others are forgotten, so that states meet."""
    reads = [{e.name for a in n.step.args for e in subexpressions(a) if isinstance(e, Local)} for n in program.nodes]
    live: list[set[str]] = [set() for _ in program.nodes]
    changed = True
    while changed:
        changed = False
        for i in range(len(program.nodes) - 1, -1, -1):
            node = program.nodes[i]
            new = reads[i] | (set[str]().union(*(live[s] for s in node.successors)) - set(node.step.results))
            if new != live[i]:
                live[i], changed = new, True
    return live
