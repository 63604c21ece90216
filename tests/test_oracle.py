"""The expected verdicts of every shipped spec against an explicit enumeration of small worlds that shares no semantics with
the checker: proved or vacuous must hold there, refuted must break there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.subjects import Obligation, Subject, subjects
from mmucheck.names.declarations import check
from mmucheck.names.loading import load
from mmucheck.syntax.diagnostics import InputError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle

SPECS = sorted((Path(__file__).resolve().parent.parent / "specs").glob("*.mmu"))
BREAKS = {"proved": False, "vacuous": False, "refuted": True}


@cache
def plan(path: Path) -> tuple[Builder, dict[Subject, list[Obligation]]]:
    library = load([path])
    check(library)
    return Builder(library), subjects(obligations(library, library.specs.values()))


def answer(path: Path, name: str) -> set[str]:
    """The properties of a subject that are broken in the small world."""
    builder, groups = plan(path)
    subject, wanted = next((s, o) for s, o in groups.items() if str(s) == name)
    oracle = Oracle(builder.system(subject), builder.properties(subject, [o.property for o in wanted]))
    broken = oracle.run()
    assert oracle.finished or len(broken) == len({o.property for o in wanted}), "no run of the path comes to its end"
    return broken


def cases() -> Iterator[object]:
    for path in SPECS:
        try:
            names = [str(s) for s in plan(path)[1]]
        except InputError:
            names = [""]  # its test reports the error
        for name in names:
            yield pytest.param(path, name, id=f"{path.stem}: {name}")


@pytest.fixture(scope="session")
def answers(request: pytest.FixtureRequest) -> Iterator[dict[tuple[Path, str], Future[set[str]]]]:
    """The answers to every selected case, worked out by all processors."""
    selected = [item.callspec.params for item in request.session.items  # type: ignore[attr-defined]
                if "answers" in getattr(item, "fixturenames", ())]  # fmt: skip
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        yield {(p["path"], p["name"]): pool.submit(answer, p["path"], p["name"]) for p in selected}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("path", "name"), list(cases()))
def test_every_expected_verdict_is_what_the_small_world_shows(
    path: Path, name: str, answers: dict[tuple[Path, str], Future[set[str]]]
) -> None:
    broken = answers[path, name].result()
    wanted = next(o for s, o in plan(path)[1].items() if str(s) == name)
    assert wanted
    wrong = [f"{o.check}: {o.property} expected {o.expected}" for o in wanted if BREAKS[o.expected] != (o.property in broken)]
    assert not wrong


@pytest.mark.parametrize(
    ("spec", "subject"),
    [
        ("cow", "do_wp_page@v3.17 on kvm before roedel_2014"),
        ("devices", "do_wp_page@v3.17 on kvm_no_seq under v3_17"),
        ("devices", "do_wp_page@v3.17 on change_pte_user before roedel_2014"),
        ("zap", "zap_page_range@v3.17 on ats after roedel_2014"),
        ("thp", "do_huge_pmd_wp_page@v3.17 on hw_start_end under v3_17"),
    ],
)
def test_running_unnoticed_steps_together_changes_no_answer(spec: str, subject: str) -> None:
    builder, groups = plan(next(p for p in SPECS if p.stem == spec))
    found = next(s for s in groups if str(s) == subject)
    asked = builder.properties(found, ["no_freed_page", "no_freed_table", "no_stale_translation", "no_stale_write", "quiescent"])
    system = builder.system(found)
    assert Oracle(system, asked).run() == Oracle(system, asked, reduced=False).run()


MIXED = """
use <v3.17/mm/memory.mmu>;
use <changes/roedel_2014.mmu>;
use <properties.mmu>;
use <devices/all.mmu>;
spec s "s" {{ check c: do_wp_page on {devices} {side} roedel_2014 proves no_freed_page, no_stale_translation, quiescent; }}
"""


@pytest.mark.parametrize(
    ("devices", "side", "breaks"),
    [
        ("ats + cpu", "before", {"no_freed_page", "no_stale_translation", "quiescent"}),
        ("ats + cpu", "after", set()),
        ("ats_two_layer_wrong + kvm", "after", {"no_stale_translation"}),
        ("xen_gntdev + amd_iommu_v2_empty_table", "before", set()),
    ],
)
def test_devices_one_at_a_time_or_all_at_once_are_the_same(tmp_path: Path, devices: str, side: str, breaks: set[str]) -> None:
    """Of several devices only one at a time acts by itself in the other tests."""
    spec = tmp_path / "mixed.mmu"
    spec.write_text(MIXED.format(devices=devices, side=side))
    builder, groups = plan(spec)
    ((subject, wanted),) = groups.items()
    system, asked = builder.system(subject), builder.properties(subject, [o.property for o in wanted])
    assert Oracle(system, asked).run() == Oracle(system, asked, apart=False).run() == breaks


HARDWARE = """
use <v3.17/mm/memory.mmu>;
use <protocols/v3_19.mmu>;
use <changes/roedel_2014.mmu>;
use <properties.mmu>;
device walker "hears of ranges" {{
    cache psc of tables from page_table;
    cache tlb of pages from page_table;
    on invalidate_range(start, end) {{ {drops} }}
}}
spec s "s" {{ check c: {path} on walker after roedel_2014 {verdict} {property}; }}
"""


@pytest.mark.parametrize(
    ("drops", "path", "property_name", "breaks"),
    [
        ("drop psc [start, end); drop tlb [start, end);", "do_wp_page", "no_stale_translation", False),
        ("drop psc [start, end); drop tlb [start, end - 1);", "do_wp_page", "no_stale_translation", True),
        ("drop psc [start, end); drop tlb [start + 1, end);", "do_wp_page", "no_stale_translation", True),
        ("drop psc [start, end); drop tlb [start + 1, end);", "do_wp_page", "no_freed_table", False),
        ("drop psc [start, end); drop tlb [start, end - 1);", "zap_page_range", "no_freed_page", True),
        ("drop tlb [start, end); drop psc [start, end);", "unmap_region", "no_freed_table", False),
        ("drop tlb [start, end);", "unmap_region", "no_freed_table", True),
    ],
)
def test_a_range_that_misses_one_byte_is_found(tmp_path: Path, drops: str, path: str, property_name: str, breaks: bool) -> None:
    verdict = "refutes" if breaks else "proves"
    spec = tmp_path / "walker.mmu"
    spec.write_text(HARDWARE.format(drops=drops, path=path, verdict=verdict, property=property_name))
    name = str(next(iter(plan(spec)[1])))
    assert (property_name in answer(spec, name)) == breaks
