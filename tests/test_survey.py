"""The survey of everything: what it asks, what it shows, and that equal subjects are decided once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmucheck.analyses import run as running
from mmucheck.analyses.plan import Builder
from mmucheck.analyses.run import run
from mmucheck.analyses.subjects import Nameless, Obligation, Subject
from mmucheck.analyses.survey import frames, kernel_of, questions
from mmucheck.analyses.verdict_cache import VerdictCache
from mmucheck.cli.inputs import load_files
from mmucheck.cli.main import main
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import VERDICTS, Decision
from mmucheck.names.library import Library
from mmucheck.names.places import models_root
from mmucheck.report.survey import letters_of


@pytest.fixture(scope="module")
def library() -> Library:
    return load_files(sorted(models_root().rglob("*.mmu")))


def test_every_protocol_and_change_has_a_frame_with_its_kernels_paths(library: Library) -> None:
    found = frames(library)
    assert {f.protocol for f in found if not f.change} == set(library.protocols)
    assert {f.change for f in found if f.change} == set(library.changes)
    for frame in found:
        assert frame.kernel == kernel_of(library, frame.protocol)
        assert {version for _, version in frame.paths} <= {frame.kernel, ""}
    asked = {p for f in found for p in f.paths}
    assert asked == {(v.declaration.name, v.version) for v in library.paths()}


def test_a_registration_that_fails_is_refused_and_not_asked(library: Library) -> None:
    frame = next(f for f in frames(library) if f.protocol == "v6_6" and not f.change)
    wanted, refused = questions(Builder(library), [frame], list(library.devices), ["no_freed_page", "paired"])
    assert refused
    assert not {o.subject for o in wanted} & set(refused)
    assert {o.subject.devices for o in wanted if o.property == "paired"} == {("section_monitor",)}


def test_subjects_that_come_to_the_same_are_decided_once(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[Subject] = []
    decide = running._decide

    def watch(systems, subject, *rest):
        decided.append(subject)
        return decide(systems, subject, *rest)

    monkeypatch.setattr(running, "_decide", watch)
    plain = Subject((("do_wp_page", "v3.17"),), ("ats",), "v3_17")
    before = Subject(plain.paths, plain.devices, "v3_17", "roedel_2014", "before")
    wanted = [Obligation(s, "no_freed_page") for s in (plain, before)]
    results = run(Builder(library), wanted, Limits(), kept=VerdictCache(tmp_path), traces=False)
    assert decided == [plain]
    assert [r.obligation for r in results] == wanted
    assert [r.decision.verdict for r in results if r.decision] == ["refuted", "refuted"]
    assert not any(r.trace for r in results)


def test_letters_are_distinct() -> None:
    names = tuple(f"no_freed_{c}" for c in "abcdefghijkl")
    assert len(set(letters_of(names).values())) == len(names)


def test_survey_shows_what_breaks_where(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["matrix", "--all", "--path", "do_wp_page", "--device", "ats", "--device", "kvm"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "do_wp_page  FSQ  ." in text
    assert "every path restores quiescence on: kvm\n" in text
    assert main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "mmucheck.survey/1"
    after = next(f for f in document["frames"] if f["change"] == "roedel_2014")
    assert after["verdicts"]["no_freed_page"]["do_wp_page"] == ["proved", "proved"]
    under = next(f for f in document["frames"] if f["protocol"] == "v3_17")
    assert under["verdicts"]["no_freed_page"]["do_wp_page"] == ["refuted", "proved"]


def test_all_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--all", "--protocol", "v3_17"]) == 2
    assert "--all is every protocol" in capsys.readouterr().err


BUILDING_UP = """kernel v9.9;
/// Its handler counts how often it ran: no single run of it is enough.
device counting {
    cache tlb of pages from page_table;
    var n = 0;
    handler fault(addr: page) { n += 1; }
}
path touch(addr: page) in "mm/none.c" requires mapped(addr) { mkwrite_pte(addr); }
protocol v9_9 { callback invalidate_range_start(start, end); }
property few "the handler runs three times at most" { always forall d: device. d.n < 4; }
"""


def test_what_a_method_left_bounded_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once all is decided or bounded by method the whole is found again, without a solver, a look at verdicts, or a system put together."""
    monkeypatch.setenv("MMUCHECK_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "counting.mmu"
    file.write_text(BUILDING_UP)
    arguments = ["matrix", "--all", str(file), "-j", "1"]
    assert main(arguments) == 3
    said = capsys.readouterr().out
    assert "1 bounded" in said
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "system", None)
        assert main(arguments) == 3
    assert capsys.readouterr().out == said
    file.write_text(BUILDING_UP.replace("d.n < 4", "d.n < 1"))
    assert main(arguments) == 0
    assert "1 refuted" in capsys.readouterr().out


def test_what_a_limit_ended_is_asked_again(tmp_path: Path) -> None:
    kept = VerdictCache(tmp_path)
    for verdict in VERDICTS:
        kept.keep(verdict, Decision(verdict, "some"), None)
        assert (kept.find(verdict) is None) == (verdict == "inconclusive")


def test_an_interrupted_survey_goes_on_where_it_was(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are kept as they fall: what was decided before the interruption is not decided again, and the rest is."""
    subjects = [Subject((("do_wp_page", "v3.17"),), (device,), "v3_17") for device in ("ats", "cpu", "hw_start_end")]
    wanted = [Obligation(s, p) for s in subjects for p in ("no_freed_page", "no_stale_translation")]
    systems = Nameless(Builder(library))
    decided: list[Subject] = []
    decide = running._decide

    def watch(systems, subject, *rest):
        decided.append(subject)
        if subject == stop_at:
            raise KeyboardInterrupt
        return decide(systems, subject, *rest)

    monkeypatch.setattr(running, "_decide", watch)
    stop_at: Subject | None = subjects[1]
    with pytest.raises(running.Interrupted) as stopped:
        run(systems, wanted, Limits(), kept=VerdictCache(tmp_path), verdicts_only=True)
    assert [r.obligation for r in stopped.value.results] == wanted[:2]
    stop_at = None
    decided.clear()
    results = run(systems, wanted, Limits(), kept=VerdictCache(tmp_path), verdicts_only=True)
    assert decided == subjects[1:]
    fresh = run(Builder(library), wanted, Limits())
    assert [r.decision and r.decision.verdict for r in results] == [r.decision and r.decision.verdict for r in fresh]
