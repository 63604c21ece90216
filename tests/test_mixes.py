"""Several devices on one address space: the verdict, the device that a refutation names, and what may be left out of a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder, Obligation, obligations
from mmucheck.analyses.run import run
from mmucheck.engines.certificate import certify, rederive
from mmucheck.engines.solver import Limits
from mmucheck.ir.program import System
from mmucheck.lower.mixes import parts
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

SOURCE = """
use <v3.17/mm/memory.mmu>;
use <changes/roedel_2014.mmu>;
use <properties.mmu>;
use <devices/all.mmu>;
device nosy "its hook waits for its handler" {{
    cache c of pages from page_table;
    var ready = 0;
    handler work(addr: page) {{ ready = 1; }}
    on invalidate_range_start(start, end) {{ wait (ready == 1); drop c [start, end); }}
}}
device thief "its handler drops a reference that is not its own" {{
    cache c of pages;
    handler work(addr: page) {{ let f, w = get_user_page(addr) else return; put_page(f); put_page(f); }}
    on invalidate_range_start(start, end) {{ drop c [start, end); }}
}}
device loud "its hook fails an assert" {{
    on invalidate_range_start(start, end) {{ assert (end < start) "never"; }}
}}
spec s "s" {{ check c: do_wp_page on {devices} after roedel_2014 proves {properties}; }}
"""


def planned(tmp_path: Path, devices: str, properties: str) -> tuple[Builder, list[Obligation]]:
    spec = tmp_path / "mix.mmu"
    spec.write_text(SOURCE.format(devices=devices, properties=properties))
    library = load([spec])
    check(library)
    return Builder(library), obligations(library, library.specs.values())


def system_of(tmp_path: Path, devices: str) -> System:
    builder, wanted = planned(tmp_path, devices, "no_freed_page")
    return builder.system(wanted[0].subject)


def test_a_refutation_names_the_device_that_is_wrong(tmp_path: Path) -> None:
    builder, wanted = planned(tmp_path, "ats + kvm + cpu + kvm_no_seq + hmm", "no_stale_translation, no_freed_page")
    results = run(builder, wanted, Limits(60))
    assert [r.decision and r.decision.verdict for r in results] == ["refuted", "refuted"]
    for result in results:
        assert result.trace is not None
        assert dict(result.trace.witness)["d"] == "kvm_no_seq"
        touched = {c.what.split(".")[0] for s in result.trace.steps for c in s.changes}
        assert touched & {"ats", "cpu", "hmm", "kvm"} == set()


def test_what_one_hook_does_to_the_thread_is_not_left_out(tmp_path: Path) -> None:
    builder, wanted = planned(tmp_path, "ats + kvm + loud", "asserts, no_stale_translation")
    assert [r.decision and r.decision.verdict for r in run(builder, wanted, Limits(60))] == ["refuted", "proved"]


def test_in_a_part_the_others_do_nothing_by_themselves(tmp_path: Path) -> None:
    system = system_of(tmp_path, "ats + kvm + cpu")
    for hooks in (True, False):
        for own, part in zip(system.devices, parts(system, hooks), strict=True):
            others = [d for d in part.devices if d.name != own.name]
            assert own in part.devices
            assert all(not d.handlers and not any(c.source for c in d.caches) and d.still for d in others)


@pytest.mark.parametrize("name", ["nosy", "thief"])
def test_a_device_that_could_hold_others_up_or_free_for_them_goes_on_acting(tmp_path: Path, name: str) -> None:
    system = system_of(tmp_path, f"ats + {name}")
    whole = next(d for d in system.devices if d.name == name)
    for part in parts(system, False):
        assert whole in part.devices


def test_one_device_alone_is_left_as_it_is(tmp_path: Path) -> None:
    system = system_of(tmp_path, "ats")
    assert parts(system, False) == parts(system, True) == (system,)


def test_a_certificate_has_the_obligations_of_every_device(tmp_path: Path) -> None:
    builder, wanted = planned(tmp_path, "ats + cpu", "no_stale_translation")
    system = builder.system(wanted[0].subject)
    properties = builder.properties(wanted[0].subject, ["no_stale_translation"])
    ((prop, decision, evidence),) = certify(system, properties, Limits(60))
    assert decision.verdict == "proved"
    assert evidence is not None
    assert [name for name, _ in evidence.texts] == ["ats.unrolled", "cpu.unrolled"]
    assert rederive(system, properties, prop, evidence.invariant, (), Limits(60)) == evidence
