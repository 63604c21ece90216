"""Strategies for whole `.mmu` texts: a protocol, a device and a path that runs on it, each made from a right idiom and then changed a
little, so that right and wrong programs are both common.

What the texts keep to, so that both sides mean the same world: a frame is named only where it is known to be mapped; a range ends at a
page or one byte beside it; a path works on the pages of its parameters; a gather is started before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

CALLBACKS = {
    "flush_tlb": "start, end", "invalidate_range_start": "start, end", "invalidate_range_end": "start, end",
    "invalidate_range": "start, end", "invalidate_page": "addr", "change_pte": "addr, pfn: frame, prot: bool",
}  # fmt: skip

PROPERTIES = {
    "no_freed_page": "always forall d: device, a: address, f: frame. cached(d, a, f) -> !freed(f)",
    "no_freed_table": "always forall d: device, a: address, t: table. table_cached(d, a, t) -> !table_freed(t)",
    "no_stale_translation": "always forall d: device, a: address, f: frame. cached(d, a, f) && mapped(a) -> maps(a, f)",
    "no_stale_write": "finally forall d: device, a: address, f: frame. cached_writable(d, a, f) -> maps(a, f) && writable_at(a)",
    "quiescent": "finally forall d: device, a: address, f: frame, t: table. (cached(d, a, f) -> maps(a, f)) "
    "&& (cached_writable(d, a, f) -> writable_at(a)) && (table_cached(d, a, t) -> links(a, t))",
    "no_sleep_in_atomic": "always forall d: device. !slept_in_atomic()",
    "asserts": "always forall d: device. !assertion_failed()",
    "closed": "finally forall d: device. d.count == 0",
    "no_device_failure": "always forall d: device. d.failed == 0",
}

PRELUDE = """const PAGE_SIZE = 4K;
const PMD_SIZE = 2M;
spinlock ptl(address / PMD_SIZE);
rwsem mmap_sem;
"""


@dataclass(frozen=True)
class Simple:
    """One statement. A ``loose`` one may be left out, doubled, or change places; ``uses`` are the locals it needs."""

    text: str
    loose: bool = True
    uses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Nest:
    """Statements between braces; ``closing`` is what follows the body, such as an else branch."""

    head: str
    body: list[Simple | Nest]
    otherwise: list[Simple | Nest] = field(default_factory=list)
    other: str = "else"


Body = list[Simple | Nest]


class Draw:
    """Choices by name over hypothesis's ``draw``; the simplest choice is the first, and "no"."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self._draw = draw
        self._names = 0

    def pick(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def chance(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - percent

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def fresh(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"


def say(text: str, *uses: str) -> Simple:
    return Simple(text, True, frozenset(uses))


def bind(text: str) -> Simple:
    """A statement others depend on."""
    return Simple(text, False)


def show(body: Body, depth: int = 1) -> Iterator[str]:
    indent = "    " * depth
    for each in body:
        if isinstance(each, Simple):
            yield indent + each.text
            continue
        yield f"{indent}{each.head} {{"
        yield from show(each.body, depth + 1)
        if each.otherwise:
            yield f"{indent}}} {each.other} {{"
            yield from show(each.otherwise, depth + 1)
        yield indent + "}"


# ---- protocols


def protocol(g: Draw) -> str:
    """What each notifier function calls: the three shapes the kernel has had, or a twisted one."""
    span = "(start, end)"
    era = g.pick(["v3.19", "v3.17", "v6.6"])
    bodies = {
        "flush_tlb(start, end)": ["call flush_tlb(start, end);"],
        "mmu_notifier_invalidate_range_start(start, end)": ["call invalidate_range_start(start, end);"],
        "mmu_notifier_invalidate_range_end(start, end)": ["call invalidate_range_end(start, end);"],
        "mmu_notifier_invalidate_range(start, end)": [],
        "mmu_notifier_invalidate_page(addr)": ["call invalidate_page(addr);"],
        "mmu_notifier_change_pte(addr, pfn: frame, prot: bool)": ["call change_pte(addr, pfn, prot);"],
    }
    ranged = "call invalidate_range(start, end);"
    if era == "v3.19":
        bodies["mmu_notifier_invalidate_range(start, end)"] = [ranged]
        bodies["mmu_notifier_invalidate_range_end(start, end)"].insert(0, ranged)
    if era == "v6.6":
        bodies["flush_tlb(start, end)"].append(ranged)
    if g.chance(20):
        name = g.pick(sorted(n for n in bodies if n.endswith(span) and bodies[n]))
        lines = bodies[name]
        twist = g.pick(["reverse", "short", "late", "wide", "maybe"])
        if twist == "reverse":
            lines.reverse()
        elif twist == "short":
            lines[0] = lines[0].replace("end)", "end - 1)")
        elif twist == "late":
            lines[0] = lines[0].replace("(start", "(start + 1")
        elif twist == "wide":
            lines[0] = f"if (end - start > PAGE_SIZE) {{ {lines[0].replace(span, '(0, TASK_SIZE)')} }} else {{ {lines[0]} }}"
        else:
            lines[-1] = f"if (nondet()) {{ {lines[-1]} }}"
    callbacks = [f"    callback {n}({p}){' atomic' if n in ('flush_tlb', 'invalidate_range') else ''};" for n, p in CALLBACKS.items()]
    functions = [f"    {head} {{ {' '.join(lines)} }}" for head, lines in bodies.items()]
    return "\n".join(['protocol proto "p" {', *callbacks, *functions, "}"])


# ---- devices


@dataclass
class Device:
    """``lines`` of the declaration; ``asks``: properties that need something the device has."""

    name: str
    lines: list[str]
    asks: set[str] = field(default_factory=set)

    def text(self) -> str:
        return "\n".join([f'device {self.name} "d" {{', *("    " + x for x in self.lines), "}"])


def device(g: Draw, name: str = "dev") -> Device:
    make = g.pick([walker, walker, walker, shadow, shadow, gated, follower, faulting])
    return make(g, name)


def drops(g: Draw, caches: list[str], page: bool = False) -> list[str]:
    """Every cache over the range, from the table outwards, or nearly so."""
    low, high = ("addr", "addr + 4K") if page else ("start", "end")
    lines = []
    for cache in caches:
        style = g.number(0, 19)
        if style == 19:
            lines.append(f"drop {cache} [{low}, {high} - 1);")
        elif style == 18:
            lines.append(f"drop {cache} [{low} + 1, {high});")
        elif style == 17:
            lines.append(f"drop {cache} all;")
        elif style == 16:
            lines.append(f"drop {cache} [{low}, {low} + 4K);")
        elif style == 15:
            lines.append(f"if ({high} - {low} > 4K) {{ drop {cache} all; }} else {{ drop {cache} [{low}, {high}); }}")
        else:
            lines.append(f"drop {cache} [{low}, {high});")
    if len(lines) > 1 and g.chance(25):
        i = g.number(0, len(lines) - 2)
        lines[i], lines[i + 1] = lines[i + 1], lines[i]
    if g.chance(10):
        lines.pop(g.number(0, len(lines) - 1))
    return lines


def hook(name: str, lines: list[str], lock: str = "") -> str:
    body = " ".join(lines)
    return f"on {name}({CALLBACKS[name]}) {{ {f'with {lock} {{ {body} }}' if lock else body} }}"


def heard(g: Draw) -> list[str]:
    """The callbacks a device listens to with a drop."""
    found = list(
        g.pick(
            [("invalidate_range",), ("invalidate_range", "flush_tlb"), ("invalidate_range_start", "invalidate_range_end"),
             ("invalidate_range_end",), ("invalidate_range", "invalidate_range_start", "invalidate_range_end"), ("flush_tlb",)]
        )
    )  # fmt: skip
    if g.chance(70):
        found.append("invalidate_page")
    return found


def walker(g: Draw, name: str) -> Device:
    """Hardware that fills by itself, in up to three layers."""
    caches, lines = [], []
    if g.chance(45):
        caches.append("psc")
        lines.append("cache psc of tables from page_table;")
    caches.append("iotlb")
    lines.append("cache iotlb of pages from page_table;")
    for above, below in (("atc", "iotlb"), ("utlb", "atc")):
        if below in caches and g.chance(30):
            caches.append(above)
            lines.append(f"cache {above} of pages from {below};")
    locked = g.chance(20)
    if locked:
        lines.append("spinlock inner;")
    sleeps = g.chance(8)
    for callback in heard(g):
        body = drops(g, [c for c in caches if c != "psc"] if callback == "invalidate_page" else caches, callback == "invalidate_page")
        if sleeps and g.chance(50):
            body.insert(0, "might_sleep();")
        lines.append(hook(callback, body, "inner" if locked else ""))
    if g.chance(15):
        lines.append(hook("change_pte", drops(g, [c for c in caches if c != "psc"], True)))
    return Device(name, lines, {"no_sleep_in_atomic"} if sleeps else set())


def gated(g: Draw, name: str) -> Device:
    """Hardware that is kept from filling while a section is open."""
    closed = g.pick(["count == 0", "empty == 0"])
    layered = g.chance(40)
    lines = ["var count = 0;", "var empty = 0;", f"cache iotlb of pages from page_table when ({closed});"]
    if layered:
        lines.append(f"cache atc of pages from iotlb{g.pick([f' when ({closed})', ''])};")
    caches = ["iotlb", "atc"] if layered else ["iotlb"]
    lock = "state_lock" if g.chance(60) else ""
    if lock:
        lines.append("spinlock state_lock;")
    shut = ["empty = 1;", *drops(g, caches)] if g.chance(40) else ["empty = 1;", *(f"drop {c} all;" for c in caches)]
    if g.chance(15):
        shut.append(shut.pop(0))
    opening = [f"if (count == 0) {{ {' '.join(shut)} }}" if g.chance(50) else " ".join(shut), "count += 1;"]
    if g.chance(20):
        opening.reverse()
    closing = ["count -= 1;", "if (count == 0) { empty = 0; }" if g.chance(70) else "empty = 0;"]
    if g.chance(15):
        closing.reverse()
    if g.chance(15):
        opening.insert(0, 'assert (start < end) "a range";')
    lines.append(hook("invalidate_range_start", opening, lock))
    lines.append(hook("invalidate_range_end", closing, lock))
    if g.chance(50):
        lines.append(hook("invalidate_page", drops(g, caches, True), lock))
    if g.chance(30):
        lines.append(hook("invalidate_range", drops(g, caches), lock))
    return Device(name, lines, {"closed"})


def shadow(g: Draw, name: str) -> Device:
    """A table that a fault handler fills under a retry rule, which may lack a part."""
    lines = ["cache spte of pages;", "var count = 0;", "var seq = 0;"]
    caches = ["spte"]
    if g.chance(20):
        lines.append("cache tlb of pages from spte;")
        caches.append("tlb")
    kind = g.pick(["spinlock", "spinlock", "mutex"])
    lines.append(f"{kind} mmu_lock;")
    second = g.chance(20)
    if second:
        lines.append("spinlock entry_lock;")
    fill_lock = "entry_lock" if second else "mmu_lock"
    locked, counted, numbered = g.chance(85), g.chance(85), g.chance(85)
    install = "fill spte addr -> f, w;" if g.chance(90) else "fill spte addr -> f, readonly;"
    tests = [t for t, on in (("count == 0", counted), ("s == seq", numbered)) if on]
    if second:
        for test in reversed(tests):
            install = f"if ({test}) {{ {install} }}"
    elif tests:
        install = f"if ({' && '.join(tests)}) {{ {install} }}"
    fault = ["let s = seq;", "let f, w = get_user_page(addr) else return;"]
    if g.chance(10):
        fault.reverse()
    if g.chance(15):
        fault.insert(0, "if (count != 0) { return; }" if g.chance(50) else "wait (count == 0);")
    if g.chance(15):
        fault.append("put_page(f);")
        fault.append(f"with {fill_lock} {{ {install} }}" if locked else install)
    else:
        fault.append(f"with {fill_lock} {{ {install} }}" if locked else install)
        fault.append("put_page(f);")
    body = " ".join(fault)
    around = g.number(0, 9)
    if around == 9:
        body = f"with read mmap_sem {{ {body} }}"
    elif around == 8:
        body = f"with ptl(addr) {{ {body} }}"
    if g.chance(8):
        lines.append("var faults = 0;")
        body = f"faults += 1; {body}"
    lines.append(f"handler fault(addr: page) {{ {body} }}")

    def section(first: list[str], then: list[str]) -> list[str]:
        if second:
            return [f"with mmu_lock {{ {' '.join(first)} }}", f"with entry_lock {{ {' '.join(then)} }}"]
        parts = [*first, *then] if not g.chance(15) else [*then, *first]
        if g.chance(15):
            return [f"with mmu_lock {{ {parts[0]} }}", f"with mmu_lock {{ {' '.join(parts[1:])} }}"]
        return [f"with mmu_lock {{ {' '.join(parts)} }}"]

    lines.append(hook("invalidate_range_start", section(["count += 1;"], drops(g, caches))))
    up = ["seq += 1;", "count -= 1;"]
    if g.chance(15):
        up.reverse()
    lines.append(hook("invalidate_range_end", [f"with mmu_lock {{ {' '.join(up)} }}"] if g.chance(85) else up))
    if g.chance(70):
        lines.append(hook("invalidate_page", section(["seq += 1;"], drops(g, caches, True))))
    if g.chance(20):
        lines.append(hook("invalidate_range", section(["seq += 1;"], drops(g, caches))))
    if len(caches) > 1 and g.chance(40):
        lines.append(hook("flush_tlb", drops(g, caches[1:])))
    asks = {"closed"} | (set() if kind == "mutex" else {"no_sleep_in_atomic"})
    return Device(name, lines, asks)


def follower(g: Draw, name: str) -> Device:
    """Rewrites its entry on change_pte."""
    lines = ["cache spte of pages;", "var seq = 0;", "spinlock mmu_lock;"]
    if g.chance(80):
        lines.append(
            "handler fault(addr: page) { let s = seq; let f, w = get_user_page(addr) else return; "
            f"with mmu_lock {{ {'if (s == seq) ' if g.chance(80) else ''}{{ fill spte addr -> f, w; }} }} put_page(f); }}"
        )
    rewrite = "drop spte [addr, addr + 4K); fill spte addr -> pfn, prot;"
    body = [f"if (has(spte, addr)) {{ {rewrite} }}" if g.chance(60) else rewrite]
    if g.chance(80):
        body.insert(0, "seq += 1;")
    lines.append(hook("change_pte", body, "mmu_lock" if g.chance(85) else ""))
    for callback in heard(g):
        lines.append(hook(callback, ["seq += 1;", *drops(g, ["spte"], callback == "invalidate_page")], "mmu_lock"))
    return Device(name, lines)


def faulting(g: Draw, name: str) -> Device:
    """Looks twice whether it has an entry, and fails if what it finds displeases it."""
    gate = g.chance(50)
    lines = ["var count = 0;", "var failed = 0;", f"cache iotlb of pages from page_table{' when (count == 0)' if gate else ''};"]
    tests = ["mapped(addr)", "!has(iotlb, addr)", "has(iotlb, addr)", "count != 0", "!mapped(addr)"]
    first = " && ".join(dict.fromkeys(g.pick(tests) for _ in range(2)))
    second = " && ".join(dict.fromkeys(g.pick(tests) for _ in range(2)))
    lines.append(f"handler dma(addr: page) {{ if ({first}) {{ if ({second}) {{ failed = 1; }} }} }}")
    lines.append(hook("invalidate_range_start", ["count += 1;", *drops(g, ["iotlb"])]))
    lines.append(hook("invalidate_range_end", ["count -= 1;", *(drops(g, ["iotlb"]) if g.chance(50) else [])]))
    if g.chance(60):
        lines.append(hook("invalidate_range", drops(g, ["iotlb"])))
    return Device(name, lines, {"closed", "no_device_failure"})


# ---- paths


def span(g: Draw, low: str, high: str) -> str:
    """The range of a notification: what it should be, or nearly."""
    style = g.number(0, 29)
    if style == 29:
        return f"{low}, {high} - 1"
    if style == 28:
        return f"{low} + 1, {high}"
    if style == 27:
        return f"{low} + PAGE_SIZE, {high} + PAGE_SIZE"
    if style == 26:
        return f"{low}, {low} + PAGE_SIZE"
    if style == 25:
        return "0, TASK_SIZE"
    return f"{low}, {high}"


@dataclass
class Place:
    """What a path works on: ``at`` an address, in [low, high)."""

    at: str
    low: str
    high: str


class PathMaker:
    """Pieces of paths, each right by itself: they lock, announce, change, flush, free."""

    def __init__(self, g: Draw) -> None:
        self.g = g
        self.gather = False

    # ---- small parts

    def told(self, where: Place, now: bool = True) -> Body:
        """CPU flush and notification of a change."""
        g, found = self.g, Body()
        if g.chance(85 if now else 60):
            found.append(say(f"flush_tlb({span(g, where.low, where.high)});"))
        how = g.number(0, 9)
        if how >= 7 - 2 * now:
            found.append(say(f"mmu_notifier_invalidate_range({span(g, where.low, where.high)});"))
        elif how == 0:
            found.append(say(f"mmu_notifier_invalidate_page({where.low});"))
        return found

    def release(self, frame: str) -> Simple:
        return say(f"tlb_queue({frame});" if self.gather and self.g.chance(70) else f"put_page({frame});", frame)

    def section(self, where: Place, body: Body) -> Body:
        g = self.g
        if not g.chance(70):
            return body
        both = f"{where.low}, {where.high}"
        opened = span(g, where.low, where.high) if g.chance(25) else both
        closed = span(g, where.low, where.high) if g.chance(25) else both
        return [
            say(f"mmu_notifier_invalidate_range_start({opened});"),
            *body,
            say(f"mmu_notifier_invalidate_range_end({closed});"),
        ]

    def locked(self, at: str, body: Body) -> Body:
        return [Nest(f"with ptl({at})", body)] if self.g.chance(85) else body

    # ---- pieces

    def zap(self, where: Place) -> Body:
        g, f = self.g, self.g.fresh("f")
        inner: Body = [bind(f"let {f} = pte_frame({where.at});"), say(f"clear_pte({where.at});")]
        now = g.chance(60)
        inner += self.told(where) if now else []
        inner.append(self.release(f))
        later = [] if now else self.told(where)
        body = self.locked(where.at, [Nest(f"if (pmd_linked({where.at}) && pte_present({where.at}))", inner)])
        if g.chance(30):
            inner[-1:], later = [], [*later, say("tlb_free_pages();")] if self.gather else later
            inner.append(self.release(f))
        return self.section(where, [*body, *later])

    def cow(self, where: Place) -> Body:
        g, old, new = self.g, self.g.fresh("old"), self.g.fresh("new")
        at = where.at
        swap: Body = [say(f"clear_pte({at});"), *self.told(where)]
        if g.chance(30):
            swap.append(say(f"mmu_notifier_change_pte({at}, {new}, writable);", new))
        swap.append(say(f"set_pte({at}, {new}, {g.pick(['writable', 'readonly'])});", new))
        swap += [say(f"put_page({old});", old)] if g.chance(80) else []
        same = f"pmd_linked({at}) && pte_present({at}) && frame_at({at}) == {old}" + (" && nondet()" if g.chance(60) else "")
        held = g.chance(50)
        work = self.locked(at, [Nest(f"if ({same})", swap, [say(f"put_page({new});", new)])])
        body: Body = [bind(f"let {old} = frame_at({at});")]
        body += [say(f"get_page({old});", old)] if held else []
        body.append(bind(f"let {new} = alloc_page() else {{ {f'put_page({old}); ' if held else ''}return; }}"))
        body += self.section(where, work)
        body += [say(f"put_page({old});", old)] if held else []
        return [Nest(f"if (pmd_linked({at}) && pte_present({at}))", body)]

    def protect(self, where: Place) -> Body:
        g, at = self.g, where.at
        step = g.pick(["wrprotect_pte", "wrprotect_pte", "mkwrite_pte"])
        inner: Body = [say(f"{step}({at});")]
        told = self.told(where)
        inner += told if g.chance(60) else []
        body = self.locked(at, [Nest(f"if (pmd_linked({at}) && pte_present({at}))", inner)])
        return self.section(where, [*body, *([] if len(inner) > 1 else told)])

    def migrate(self, where: Place) -> Body:
        """The entry becomes a marker, then a mapping of another frame or of the same."""
        g, old, new, at = self.g, self.g.fresh("old"), self.g.fresh("new"), where.at
        away: Body = [say(f"set_pte_marker({at});"), *self.told(where)]
        back: Body = [say(f"set_pte({at}, {new}, writable);", new), say(f"put_page({old});", old)]
        stay: Body = [say(f"put_page({new});", new), say(f"set_pte({at}, {old}, readonly);", old)]
        cond = f"pmd_linked({at}) && !pte_none({at}) && !pte_present({at})" + (" && nondet()" if g.chance(50) else "")
        restore: Body = [Nest(f"if ({cond})", back, stay if g.chance(60) else [say(f"put_page({new});", new)])]
        body: Body = [bind(f"let {old} = pte_frame({at});"), bind(f"let {new} = alloc_page() else return;")]
        if g.chance(50):
            body += [*self.section(where, self.locked(at, away)), *self.locked(at, restore)]
        else:
            body += self.section(where, [*self.locked(at, away), *self.locked(at, restore)])
        return [Nest(f"if (pmd_linked({at}) && pte_present({at}))", body)]

    def populate(self, where: Place) -> Body:
        g, new, at = self.g, self.g.fresh("new"), where.at
        if g.chance(25):
            install: Body = [say(f"set_pte({at}, zero_page(), readonly);")]
            return self.locked(at, [Nest(f"if (pmd_linked({at}) && pte_none({at}))", install)])
        install = [say(f"set_pte({at}, {new}, {g.pick(['writable', 'readonly'])});", new)]
        work = self.locked(at, [Nest(f"if (pmd_linked({at}) && pte_none({at}))", install, [say(f"put_page({new});", new)])])
        return [bind(f"let {new} = alloc_page() else return;"), *work]

    def peek(self, where: Place) -> Body:
        """A reference for a while; what happens meanwhile stands between."""
        g, f, w = self.g, self.g.fresh("f"), self.g.fresh("w")
        inner = self.piece(where, small=True) if g.chance(60) else [say(f"get_page({f});", f)]
        return [bind(f"let {f}, {w} = get_user_page({where.at}) else return;"), *inner, say(f"put_page({f});", f)]

    def free_table(self, where: Place) -> Body:
        g, t, at = self.g, self.g.fresh("t"), where.at
        low, high = f"{at} & ~(PMD_SIZE - 1)", f"({at} & ~(PMD_SIZE - 1)) + PMD_SIZE"
        region = Place(at, low, high)
        inner: Body = [bind(f"let {t} = table_at({at});")]
        inner += [say(f"clear_table({at});")] if g.chance(20) else []
        inner += [say(f"assume_none_outside({at}, {where.low}, {where.high});")] if g.chance(30) else []
        inner.append(say(f"clear_pmd({at});"))
        queue = self.gather and g.chance(60)
        if queue:
            inner.append(say(f"tlb_queue_table({t});", t))
            later = [*self.told(region), say("tlb_free_tables();")]
            return self.section(region, [Nest(f"if (pmd_linked({at}))", inner), *later])
        inner += [*self.told(region), say(f"put_table({t});", t)]
        return self.section(region, [Nest(f"if (pmd_linked({at}))", inner)])

    def link_table(self, where: Place) -> Body:
        t, at = self.g.fresh("t"), where.at
        inner: Body = [say(f"populate_pmd({at}, {t});", t)]
        return [bind(f"let {t} = alloc_table() else return;"), Nest(f"if (pmd_none({at}))", inner, [say(f"put_table({t});", t)])]

    def huge_zap(self, where: Place) -> Body:
        g, f, at = self.g, self.g.fresh("page"), where.at
        step = g.pick(["clear_pmd", "set_pmd_marker"])
        inner: Body = [bind(f"let {f} = pmd_frame({at});"), say(f"{step}({at});"), *self.told(where), self.release(f)]
        return self.section(where, self.locked(at, [Nest(f"if (pmd_huge({at}))", inner)]))

    def huge_protect(self, where: Place) -> Body:
        step = self.g.pick(["wrprotect_pmd", "mkwrite_pmd"])
        inner: Body = [say(f"{step}({where.at});"), *self.told(where)]
        return self.section(where, self.locked(where.at, [Nest(f"if (pmd_huge({where.at}))", inner)]))

    def huge_cow(self, where: Place) -> Body:
        g, old, new, at = self.g, self.g.fresh("old"), self.g.fresh("new"), where.at
        swap: Body = [say(f"clear_pmd({at});"), *self.told(where)]
        swap += [say(f"set_pmd({at}, {new}, writable);", new), say(f"put_page({old});", old)]
        same = f"pmd_huge({at}) && pmd_frame({at}) == {old}" + (" && nondet()" if g.chance(50) else "")
        work = self.section(where, self.locked(at, [Nest(f"if ({same})", swap, [say(f"put_page({new});", new)])]))
        body: Body = [bind(f"let {old} = pmd_frame({at});"), bind(f"let {new} = alloc_huge_page() else return;"), *work]
        return [Nest(f"if (pmd_huge({at}))", body)]

    def huge_split(self, where: Place) -> Body:
        g, page, t, w, at = self.g, self.g.fresh("page"), self.g.fresh("t"), self.g.fresh("w"), where.at
        inner: Body = [bind(f"let {page} = pmd_frame({at});"), bind(f"let {w} = pmd_writable({at});"), bind(f"split_page({page});")]
        fill, mark = say(f"fill_table({at}, {page}, {w});", page, w), say(f"{g.pick(['set_pmd_marker', 'clear_pmd'])}({at});")
        inner += [fill, mark] if g.chance(60) else [mark, fill]
        inner += [*self.told(where), say(f"populate_pmd({at}, {t});", t)]
        work = self.locked(at, [Nest(f"if (pmd_huge({at}))", inner, [say(f"put_table({t});", t)])])
        return [bind(f"let {t} = alloc_table() else return;"), *self.section(where, work)]

    def move(self, here: Place, there: Place) -> Body:
        """mremap: the entry and its reference go from one place to another."""
        f, w = self.g.fresh("f"), self.g.fresh("w")
        inner: Body = [bind(f"let {f} = pte_frame({here.at});"), bind(f"let {w} = pte_writable({here.at});")]
        inner += [say(f"clear_pte({here.at});"), *self.told(here), say(f"set_pte({there.at}, {f}, {w});", f, w)]
        fits = f"pmd_linked({here.at}) && pte_present({here.at}) && pmd_linked({there.at}) && pte_none({there.at})"
        return self.section(here, self.locked(here.at, [Nest(f"if ({fits})", inner)]))

    def merge(self, here: Place, there: Place) -> Body:
        """KSM: one page takes over the frame of another."""
        old, kept = self.g.fresh("old"), self.g.fresh("kept")
        inner: Body = [bind(f"let {old} = pte_frame({here.at});"), bind(f"let {kept} = pte_frame({there.at});")]
        inner += [say(f"get_page({kept});", kept), say(f"clear_pte({here.at});"), *self.told(here)]
        inner += [say(f"set_pte({here.at}, {kept}, readonly);", kept), say(f"put_page({old});", old)]
        fits = " && ".join(f"pmd_linked({p.at}) && pte_present({p.at})" for p in (here, there))
        return self.section(here, self.locked(here.at, [Nest(f"if ({fits})", inner)]))

    def detour(self, where: Place) -> Body:
        """A look at a page far away."""
        far = self.g.pick(["4M", "1G"])
        return [Nest(f"if (mapped({where.at} + {far}))", [say("might_sleep();")])]

    def piece(self, where: Place, small: bool = False) -> Body:
        makers = [self.zap, self.cow, self.zap, self.cow, self.protect, self.migrate, self.populate, self.free_table, self.detour]
        if not small:
            makers += [self.link_table, self.peek]
        return self.g.pick(makers)(where)

    def huge_piece(self, where: Place) -> Body:
        return self.g.pick([self.huge_zap, self.huge_cow, self.huge_split, self.huge_protect, self.free_table])(where)

    # ---- whole paths

    def wrapped(self, body: Body) -> Body:
        """A branch, or a lock, around a piece."""
        g = self.g
        style = g.number(0, 19)
        if style == 19:
            return [Nest("if (nondet())", body)]
        if style == 18:
            return [Nest("choose", body, [say("might_sleep();")], "or")]
        if style >= 14:
            return [Nest(f"with {g.pick(['read', 'write'])} mmap_sem", body)]
        if style == 13:
            return [Nest("if (nondet())", [bind("return;")]), *body]
        return body

    def path(self) -> tuple[str, list[str], Body]:
        """(parameters, requires, body)."""
        g = self.g
        shape = g.pick(["page", "page", "page", "pages", "huge", "range"])
        self.gather = g.chance(35)
        body: Body = []
        if shape == "page":
            where = Place("addr", "addr", "addr + PAGE_SIZE")
            for _ in range(g.number(1, 2)):
                body += self.wrapped(self.piece(where))
            head, requires = "addr: page", [["mapped(addr)", "!pmd_huge(addr)"], ["!pmd_huge(addr)"], []][g.number(0, 2)]
            low, high = where.low, where.high
        elif shape == "pages":
            here, there = (Place(x, x, f"{x} + PAGE_SIZE") for x in ("addr", "other"))
            first = g.pick([self.move, self.merge])(here, there) if g.chance(60) else self.piece(here)
            body += self.wrapped(first)
            if g.chance(50):
                body += self.wrapped(self.piece(there))
            head, requires = "addr: page, other: page", [["addr != other"], [], ["addr < other"]][g.number(0, 2)]
            low, high = ("addr", "addr + PAGE_SIZE")
        elif shape == "huge":
            where = Place("addr", "addr", "addr + PMD_SIZE")
            for _ in range(g.number(1, 2)):
                body += self.wrapped(self.huge_piece(where))
            head, requires = "addr: huge_page", [["pmd_huge(addr)"], []][g.number(0, 1)]
            low, high = where.low, where.high
        else:
            where, whole = Place("p", "p", "p + PAGE_SIZE"), Place("p", "start", "end")
            work = self.piece(where, small=True) if g.chance(30) else self.zap_in_loop(where)
            after = self.told(whole)
            walk: Body = [Nest("for p in [start, end) step PAGE_SIZE", work), *after]
            if self.gather:
                walk.append(say("tlb_free_pages();"))
            body += self.wrapped(self.section(whole, walk))
            head, requires = "start: page, end: page", ["start < end"]
            low, high = "start", "end"
        if self.gather:
            tail: Body = [say(f"flush_tlb({low}, {high});")] if g.chance(50) else []
            body = [bind(f"tlb_gather({low}, {high});"), *body, *tail, say("tlb_free_pages();"), say("tlb_free_tables();")]
        return head, requires, body

    def zap_in_loop(self, where: Place) -> Body:
        g, f = self.g, self.g.fresh("f")
        inner: Body = [bind(f"let {f} = pte_frame({where.at});"), say(f"clear_pte({where.at});")]
        inner += self.told(where) if g.chance(40) else []
        inner.append(self.release(f))
        if g.chance(25):
            inner.append(Nest("if (nondet())", [say(f"flush_tlb({span(g, where.low, where.high)});"), say("tlb_free_pages();")]))
        if g.chance(10):
            inner.append(Nest("if (nondet())", [bind("break;")]))
        return self.locked(where.at, [Nest(f"if (pmd_linked({where.at}) && pte_present({where.at}))", inner)])


def mutate(g: Draw, body: Body) -> None:
    """Leave a loose statement out, say it twice, or let two neighbours change places."""
    spots = [(block, i) for block in blocks(body) for i, each in enumerate(block) if isinstance(each, Simple) and each.loose]
    if not spots:
        return
    block, i = g.pick(spots)
    kind = g.pick(["swap", "drop", "drop", "double"])
    if kind == "drop" and len(block) > 1:
        block.pop(i)
    elif kind == "double":
        block.insert(i, block[i])
    elif kind == "swap":
        mate = block[i + 1] if i + 1 < len(block) else None
        if isinstance(mate, Nest) or (isinstance(mate, Simple) and mate.loose):
            block[i], block[i + 1] = mate, block[i]


def blocks(body: Body) -> Iterator[Body]:
    yield body
    for each in body:
        if isinstance(each, Nest):
            yield from blocks(each.body)
            if each.otherwise:
                yield from blocks(each.otherwise)


@st.composite
def programs(draw: Callable[[st.SearchStrategy[int]], int]) -> str:
    """A whole text: a spec ``random`` whose one check names the path, the device and the properties."""
    g = Draw(draw)
    dev = device(g)
    maker = PathMaker(g)
    head, requires, body = maker.path()
    for _ in range(g.pick([0, 0, 1, 1, 2, 3])):
        mutate(g, body)
    declared = "\n".join(dev.lines)
    asked = ["no_freed_page", "no_stale_translation", "no_stale_write", "quiescent", *sorted(dev.asks)]
    asked += ["no_freed_table"] if "of tables" in declared else []
    asked += ["asserts"] if "assert" in declared else []
    if "might_sleep" in "\n".join(show(body)) and "no_sleep_in_atomic" not in asked:
        asked.append("no_sleep_in_atomic")
    parts = [PRELUDE, *(f'property {p} "{p}" {{ {PROPERTIES[p]}; }}' for p in asked), protocol(g), dev.text()]
    conditions = "".join(f" requires {r}" for r in requires)
    parts.append("\n".join([f'path p({head}) in "mm/random.c"{conditions} {{', *show(body), "}"]))
    parts.append(f'spec random "random" {{ check c: p on {dev.name} under proto proves {", ".join(asked)}; }}')
    return "\n".join(parts) + "\n"
