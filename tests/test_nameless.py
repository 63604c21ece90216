"""What is decided once for many: equal systems under names of their own, and starts that served before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmucheck.analyses.plan import Builder
from mmucheck.analyses.run import run
from mmucheck.analyses.subjects import Nameless, Obligation, Subject
from mmucheck.analyses.verdict_cache import keys_of
from mmucheck.cli.inputs import load_files
from mmucheck.engines.decide import ROUNDS, decide
from mmucheck.engines.known import KnownStarts, within
from mmucheck.engines.solver import Limits
from mmucheck.ir.nameless import nameless
from mmucheck.ir.program import Node, Program, PropertyDecl, Step, System
from mmucheck.names.library import Library
from mmucheck.names.places import models_root

LIMITS = Limits(timeout=300)
SAMPLE = [
    ("do_wp_page", "v3.17", "ats", "v3_17", ""),
    ("do_wp_page", "v3.17", "hmm", "v3_17", ""),
    ("do_wp_page", "v3.17", "section_monitor", "v3_17", ""),
    ("do_wp_page", "v3.17", "ats_sleeping", "v3_19", "roedel_2014"),
    ("replace_page", "v3.17", "intel_svm", "v3_17", ""),
    ("move_huge_pmd", "v3.17", "ats_two_layer_wrong", "v3_19", ""),
    ("change_protection", "v3.17", "amd_iommu_v2_faults", "v3_17", ""),
    ("zap_page_range", "v3.17", "kvm_no_seq", "v3_17", ""),
    ("madvise_dontneed_page", "v4.15", "cpu", "v4_15", ""),
]
"""Loop-free paths and paths with loops, devices with handlers, layers, variables, asserts and sleeping hooks, variables of the address
space."""


@pytest.fixture(scope="module")
def builder() -> Builder:
    return Builder(load_files(sorted(models_root().rglob("*.mmu"))))


def subject_of(path: str, version: str, device: str, protocol: str, change: str = "") -> Subject:
    return Subject(((path, version),), (device,), protocol, change, "after" if change else "")


def properties_of(library: Library, device: str) -> list[str]:
    return [p.name for p in library.properties.values() if p.device in ("", device)]


@pytest.mark.parametrize("which", SAMPLE, ids=lambda w: f"{w[0]}-{w[2]}")
def test_a_system_and_its_nameless_form_have_the_same_verdicts(builder: Builder, which: tuple[str, str, str, str, str]) -> None:
    subject = subject_of(*which)
    system = builder.system(subject)
    properties = builder.properties(subject, properties_of(builder.library, which[2]))
    found = {name: d.verdict for name, d in decide(system, properties, LIMITS).items()}
    assert {name: d.verdict for name, d in decide(nameless(system), properties, LIMITS).items()} == found
    assert "proved" in found.values() or "refuted" in found.values()


def test_what_is_no_name_stays(builder: Builder) -> None:
    system = replace(builder.system(subject_of("madvise_dontneed_page", "v4.15", "cpu", "v4_15")), crowd=True)
    bare = nameless(system)
    assert bare.shared
    assert (bare.crowd, bare.shared, bare.levels) == (True, system.shared, system.levels)


def test_nameless_systems_are_equal_where_only_names_and_places_differ(builder: Builder) -> None:
    before = builder.system(subject_of("do_wp_page", "v3.17", "kvm_drop_first", "v3_17"))
    again = builder.system(subject_of("do_wp_page", "v3.17", "kvm_drop_first", "v3_19"))
    assert before != again
    assert nameless(before) == nameless(again)
    assert nameless(nameless(before)) == nameless(before)


def test_no_two_devices_of_one_path_become_one_by_mistake(builder: Builder) -> None:
    """Each of these leaves out one thing that another does: the forms must differ."""
    devices = ["kvm", "kvm_no_count", "kvm_no_seq", "kvm_no_drop", "kvm_no_lock", "kvm_seq_late", "kvm_drop_first", "ats", "ats_sleeping"]
    forms = [repr(nameless(builder.system(subject_of("do_wp_page", "v3.17", d, "v3_19", "roedel_2014")))) for d in devices]
    assert len(set(forms)) == len(forms)


def _mutants(system: System) -> list[System]:
    """The system with one step of the path changed: its operation, an argument left out of it, its successors."""
    (path,) = system.threads
    found: list[System] = []

    def put(index: int, node: Node) -> None:
        changed: Program = replace(path, nodes=(*path.nodes[:index], node, *path.nodes[index + 1 :]))
        found.append(replace(system, threads=(changed,)))

    swap = {"clear_pte": "set_pte_marker", "get_page": "put_page", "put_page": "get_page", "lock": "unlock", "unlock": "lock"}
    for i, node in enumerate(path.nodes):
        step: Step = node.step
        if step.op in swap:
            put(i, replace(node, step=replace(step, op=swap[step.op])))
        if step.op == "branch":
            put(i, replace(node, successors=node.successors[::-1]))
        if step.op in ("drop", "set_pte", "assign") and len(step.args) > 1:
            put(i, replace(node, step=replace(step, args=(*step.args[1:], step.args[0]))))
        if step.op in ("drop", "put_page", "clear_pte"):
            put(i, replace(node, step=replace(step, op="nop", args=(), names=())))
    return found


def test_whatever_a_step_does_stays_in_the_form(builder: Builder) -> None:
    system = builder.system(subject_of("do_wp_page", "v3.17", "kvm", "v3_19", "roedel_2014"))
    mutants = _mutants(system)
    assert len(mutants) > 10
    assert nameless(system) not in [nameless(m) for m in mutants]


def test_keys_of_verdicts_with_and_without_traces_differ(builder: Builder) -> None:
    subject = subject_of("do_wp_page", "v3.17", "ats", "v3_17")
    properties = builder.properties(subject, ["no_freed_page"])
    assert keys_of(builder.form(subject), properties, LIMITS) != keys_of(Nameless(builder).form(subject), properties, LIMITS)


def _chosen(builder: Builder, devices: list[str], path: str = "do_wp_page") -> list[Obligation]:
    return [Obligation(subject_of(path, "v3.17", d, "v3_17"), p) for d in devices for p in properties_of(builder.library, d)]


@pytest.mark.parametrize("path", ["do_wp_page", "zap_page_range"])
def test_a_run_for_verdicts_only_finds_the_same(builder: Builder, path: str) -> None:
    wanted = _chosen(builder, ["ats", "ats_faults", "hw_start_end", "cpu"], path)
    slow = run(builder, wanted, LIMITS, traces=False)
    fast = run(builder, wanted, LIMITS, verdicts_only=True)
    verdicts = [[(r.obligation, r.decision and r.decision.verdict) for r in found] for found in (fast, slow)]
    assert verdicts[0] == verdicts[1]
    assert any(r.decision is not None and r.decision.method == "known start" for r in fast)
    assert not any(r.trace or r.error for r in fast)


def _property(builder: Builder, subject: Subject, name: str) -> PropertyDecl:
    (found,) = builder.properties(subject, [name])
    return found


def test_a_known_start_says_nothing_where_nothing_breaks(builder: Builder) -> None:
    bad, good = (subject_of("do_wp_page", "v3.17", d, "v3_17") for d in ("ats", "kvm"))
    prop = _property(builder, bad, "no_freed_page")
    known = KnownStarts()
    assert decide(nameless(builder.system(bad)), [prop], LIMITS, known=known)["no_freed_page"].verdict == "refuted"
    assert known.breaks(nameless(builder.system(bad)), [prop], ROUNDS)
    assert not known.breaks(nameless(builder.system(good)), [prop], ROUNDS)
    assert decide(nameless(builder.system(good)), [prop], LIMITS, known=known)["no_freed_page"].verdict == "proved"


def test_of_known_starts_only_runs_count_that_the_solver_is_asked_for(builder: Builder) -> None:
    subject = subject_of("zap_page_range", "v3.17", "ats", "v3_17")
    system, prop = nameless(builder.system(subject)), _property(builder, subject, "quiescent")
    violation = decide(system, [prop], LIMITS)["quiescent"].violation
    assert violation is not None
    assert within(system, violation.events, ROUNDS)
    assert not within(system, [*violation.events, *violation.events, *violation.events], ROUNDS)
    assert not within(system, violation.events, -1)
