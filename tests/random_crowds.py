"""Strategies for texts with paths that two threads run again and again: small ones, since the oracle follows every interleaving.

Each path is made from a right idiom; a lock may be left out or given up early, a flush come late or be of a wrong range, a reference be
put too early or never (what ``random_programs.mutate`` does, and the variants here).
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from random_programs import PRELUDE, PROPERTIES, Body, Draw, Nest, bind, drops, hook, mutate, say, show

PROTOCOL = """protocol proto "p" {
    callback flush_tlb(start, end) atomic;
    flush_tlb(start, end) { call flush_tlb(start, end); }
}"""

SECTIONS = """protocol proto "p" {
    callback flush_tlb(start, end) atomic;
    callback enter(start, end);
    callback leave(start, end);
    flush_tlb(start, end) { call flush_tlb(start, end); }
    enter(start, end) { call enter(start, end); }
    leave(start, end) { call leave(start, end); }
}"""
"""With callbacks before and after, for devices that are filled by a handler."""


class Small:
    """Paths of a few steps. ``careful``: the percentage with which what is needed is there."""

    def __init__(self, g: Draw, careful: int = 88) -> None:
        self.g, self.careful = g, careful

    def kept(self) -> bool:
        return not self.g.chance(100 - self.careful)

    def lock(self, at: str) -> tuple[str, str]:
        """Taking and giving back: the lock of an entry, nearly always."""
        if not self.kept():
            return ("", "")
        return self.g.pick([(f"lock ptl({at});", f"unlock ptl({at});"), ("lock write mmap_sem;", "unlock write mmap_sem;"),
                            (f"lock ptl({at});", f"unlock ptl({at});")])  # fmt: skip

    def flush(self, low: str, high: str) -> Body:
        if not self.kept():
            return self.g.pick([[], [say(f"flush_tlb({low}, {high} - 1);")], [say(f"flush_tlb({low} + 1, {high});")]])
        return [say(f"flush_tlb({low}, {high});")]

    def around(self, at: str, inner: Body, after: Body, test: str) -> Body:
        """``inner`` under the lock, ``after`` behind the test, often under the lock still."""
        taken, given = self.lock(at)
        early = not self.kept()
        found: Body = [bind(taken)] if taken else []
        if early and taken:  # given up in the middle
            found.append(Nest(f"if ({test})", [*inner, bind(given), *after], [bind(given)]))
            return found
        found.append(Nest(f"if ({test})", [*inner, *after]))
        return [*found, bind(given)] if given else found

    def zap(self, at: str, queue: bool = False) -> Body:
        g, f = self.g, self.g.fresh("f")
        put = say(f"tlb_queue({f});" if queue else f"put_page({f});", f)
        clear = g.pick(["clear_pte", "clear_pte", "clear_pte", "set_pte_marker"])
        inner: Body = [bind(f"let {f} = pte_frame({at});"), say(f"{clear}({at});")]
        rest: Body = [] if queue else self.flush(at, f"{at} + PAGE_SIZE")
        rest = [*rest, put] if self.kept() else [put, *rest]
        return self.around(at, inner, rest, f"pmd_linked({at}) && pte_present({at})")

    def fault(self, at: str) -> Body:
        g, new = self.g, self.g.fresh("new")
        test = f"pmd_linked({at}) && pte_none({at})" if self.kept() else f"pmd_linked({at}) && !pte_present({at})"
        taken, given = self.lock(at)
        body: Body = [bind(f"let {new} = alloc_page() else return;")]
        body += [bind(taken)] if taken else []
        how = g.pick(["writable", "readonly"])
        body.append(Nest(f"if ({test})", [say(f"set_pte({at}, {new}, {how});", new)], [say(f"put_page({new});", new)]))
        return [*body, bind(given)] if given else body

    def cow(self, at: str) -> Body:
        old, new = self.g.fresh("old"), self.g.fresh("new")
        swap: Body = [say(f"clear_pte({at});"), *self.flush(at, f"{at} + PAGE_SIZE"), say(f"set_pte({at}, {new}, writable);", new)]
        swap = [*swap, say(f"put_page({old});", old)] if self.kept() else [say(f"put_page({old});", old), *swap]
        taken, given = self.lock(at)
        first: Body = [bind(f"let {new} = alloc_page() else return;"), *([bind(taken)] if taken else [])]
        work = Nest(f"if (pmd_linked({at}) && pte_present({at}))", [bind(f"let {old} = pte_frame({at});"), *swap],
                    [say(f"put_page({new});", new)])  # fmt: skip
        return [*first, work, *([bind(given)] if given else [])]

    def protect(self, at: str) -> Body:
        step = self.g.pick(["wrprotect_pte", "wrprotect_pte", "mkwrite_pte"])
        return self.around(at, [say(f"{step}({at});")], self.flush(at, f"{at} + PAGE_SIZE"), f"pmd_linked({at}) && pte_present({at})")

    def peek(self, at: str) -> Body:
        f, w = self.g.fresh("f"), self.g.fresh("w")
        return [bind(f"let {f}, {w} = get_user_page({at}) else return;"), *([say(f"put_page({f});", f)] if self.kept() else [])]

    def share(self, at: str, other: str) -> Body:
        """The frame of one page is mapped at another, too."""
        f = self.g.fresh("f")
        take: Body = [say(f"get_page({f});", f)] if self.kept() else []
        inner: Body = [bind(f"let {f} = pte_frame({at});"), *take, say(f"set_pte({other}, {f}, readonly);", f)]
        test = " && ".join([f"pmd_linked({at})", f"pmd_linked({other})", f"pte_present({at})", f"pte_none({other})"])
        taken, given = ("lock write mmap_sem;", "unlock write mmap_sem;") if self.g.chance(60) else self.lock(at)
        found: Body = [bind(taken)] if taken else []
        found.append(Nest(f"if ({test})", inner))
        return [*found, bind(given)] if given else found

    def move(self, at: str, other: str) -> Body:
        f = self.g.fresh("f")
        inner: Body = [bind(f"let {f} = pte_frame({at});"), say(f"clear_pte({at});"), *self.flush(at, f"{at} + PAGE_SIZE"),
                       say(f"set_pte({other}, {f}, writable);", f)]  # fmt: skip
        test = " && ".join([f"pmd_linked({at})", f"pmd_linked({other})", f"pte_present({at})", f"pte_none({other})"])
        taken, given = ("lock write mmap_sem;", "unlock write mmap_sem;") if self.g.chance(60) else self.lock(at)
        found: Body = [bind(taken)] if taken else []
        found.append(Nest(f"if ({test})", inner))
        return [*found, bind(given)] if given else found

    def sweep(self, queue: bool) -> Body:
        late = self.g.chance(40)
        body: Body = [Nest("for p in [start, end) step PAGE_SIZE", self.zap("p", queue))]
        if queue:
            body = [bind("tlb_gather(start, end);"), *body]
        if queue or late:
            body += self.flush("start", "end")
        if queue:
            free = say("tlb_free_pages();")
            body = [*body, free] if self.kept() else [*body[:-1], free, *body[-1:]]
        return body

    def free_table(self, at: str) -> Body:
        t = self.g.fresh("t")
        low, high = f"{at} & ~(PMD_SIZE - 1)", f"({at} & ~(PMD_SIZE - 1)) + PMD_SIZE"
        inner: Body = [bind(f"let {t} = table_at({at});"), say(f"clear_pmd({at});"), *self.flush(low, high)]
        inner = [*inner, say(f"put_table({t});", t)] if self.kept() else [*inner[:-1], say(f"put_table({t});", t), *inner[-1:]]
        return self.around(at, inner, [], f"pmd_linked({at})")

    def link_table(self, at: str) -> Body:
        t = self.g.fresh("t")
        taken, given = self.lock(at)
        body: Body = [bind(f"let {t} = alloc_table() else return;"), *([bind(taken)] if taken else [])]
        body.append(Nest(f"if (pmd_none({at}))", [say(f"populate_pmd({at}, {t});", t)], [say(f"put_table({t});", t)]))
        return [*body, *([bind(given)] if given else [])]

    def path(self, tables: bool) -> tuple[str, list[str], Body]:
        """(parameters, requires, body)."""
        g = self.g
        if tables:
            make = g.pick([self.free_table, self.link_table, self.free_table, self.zap, self.fault])
            return "addr: page", [], make("addr")
        kind = g.pick(["one", "one", "one", "two", "range"])
        if kind == "two":
            body = g.pick([self.share, self.move])("addr", "other")
            return "addr: page, other: page", g.pick([["addr != other"], []]), body
        if kind == "range":
            return "start: page, end: page", ["start < end"], self.sweep(g.chance(35))
        make = g.pick([self.zap, self.fault, self.cow, self.zap, self.fault, self.protect, self.peek])
        return "addr: page", g.pick([[], ["pmd_linked(addr)"]]), make("addr")


def walker(g: Draw, tables: bool) -> list[str]:
    caches = (["psc"] if tables else []) + ["iotlb"] + (["atc"] if g.chance(15) else [])
    sources = {"psc": "tables from page_table", "iotlb": "pages from page_table", "atc": "pages from iotlb"}
    lines = [f"cache {c} of {sources[c]};" for c in caches]
    body = drops(g, caches) if g.chance(15) else [f"drop {c} [start, end);" for c in caches]
    return [*lines, hook("flush_tlb", body)]


def handled(g: Draw, kept: Callable[[], bool]) -> list[str]:
    """A device that its handler fills, if no section is open and none has come by since it looked; now and then one that forgets to ask."""
    lock = ("with guard { ", " }") if kept() else ("", "")
    asks = [a for a in ("count == 0", "s == seq") if kept()] or ["true"]
    drop = "drop iotlb [start, end);"
    into = ["count += 1;", *(["seq += 1;"] if g.chance(30) else []), *([drop] if kept() else [])]
    out = ["seq += 1;", "count -= 1;"] if kept() else ["count -= 1;", "seq += 1;"] if g.chance(50) else ["count -= 1;"]
    flush = ["seq += 1;", drop] if kept() else [drop, "seq += 1;"] if g.chance(50) else [drop]
    whole = kept()

    def section(body: list[str]) -> str:
        return f"{lock[0]}{' '.join(body)}{lock[1]}" if whole or len(body) < 2 else f"{body[0]} {lock[0]}{' '.join(body[1:])}{lock[1]}"

    first = ["let s = seq;", "let f, w = get_user_page(addr) else return;"]
    fill = f"{lock[0]}if ({' && '.join(asks)}) {{ fill iotlb addr -> f, w; }}{lock[1]}"
    if not kept():
        first.reverse()
    rest = [fill, "put_page(f);"] if kept() else ["put_page(f);", fill]
    return ["cache iotlb of pages;", "var count = 0;", "var seq = 0;", "spinlock guard;",
            f"handler fault_in(addr: page) {{ {' '.join([*first, *rest])} }}",
            f"on enter(start, end) {{ {section(into)} }}", f"on leave(start, end) {{ {section(out)} }}",
            f"on flush_tlb(start, end) {{ {section(flush)} }}"]  # fmt: skip


def sectioned(body: Body, head: str) -> Body:
    """The body between an ``enter`` and a ``leave``; what returns early comes before."""
    low, high = ("start", "end") if head.startswith("start") else ("addr", "addr + PAGE_SIZE")
    behind = max((i + 1 for i, s in enumerate(body) if "return" in getattr(s, "text", "")), default=0)
    return [*body[:behind], bind(f"enter({low}, {high});"), *body[behind:], bind(f"leave({low}, {high});")]


@st.composite
def crowds(draw: Callable[[st.SearchStrategy[int]], int], careful: int = 88) -> str:
    """A whole text: a spec ``random`` whose one check names two or three paths, the device and the properties."""
    g = Draw(draw)
    tables = g.chance(20)
    handler = not tables and g.chance(40)
    maker = Small(g, careful)
    parts: list[str] = []
    count = g.pick([2, 2, 2, 3])
    for i in range(count):
        head, requires, body = maker.path(tables)
        if g.chance(20):
            mutate(g, body)
        if handler and g.chance(60):
            body = sectioned(body, head)
        conditions = "".join(f" requires {r}" for r in requires)
        parts.append("\n".join([f'path p{i}({head}) in "mm/random.c"{conditions} {{', *show(body), "}"]))
    asked = ["no_freed_page", "no_stale_translation"]
    asked += ["no_stale_write"] if g.chance(30) else []
    asked = ["no_freed_table", *(["no_freed_page"] if g.chance(30) else [])] if tables else asked
    texts = [PRELUDE, *(f'property {p} "{p}" {{ {PROPERTIES[p]}; }}' for p in asked)]
    texts.append(SECTIONS if handler else PROTOCOL)
    device = handled(g, maker.kept) if handler else walker(g, tables)
    texts.append("\n".join(['device dev "d" {', *("    " + x for x in device), "}"]))
    names = ", ".join(f"p{i}" for i in range(count))
    texts += [*parts, f'spec random "random" {{ check c: loop {{ choose {names} }} on dev under proto proves {", ".join(asked)}; }}']
    return "\n".join(texts) + "\n"
