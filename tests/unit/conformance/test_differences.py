"""What the table explains, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.conformance.compare import ABSENT, Difference, differences
from mesh.conformance.differences import PRESENT, RUNS, Entry, TableError, judge, table


def entry(*path: str, istiod: object = 1, ours: object = 2, runs: tuple[str, ...] = RUNS) -> Entry:
    return Entry(path, istiod, ours, "because", runs)


def found(*path: str, istiod: object = 1, ours: object = 2) -> Difference:
    return Difference("svc_oms-0", path, istiod, ours)


def test_leaves_that_one_side_lacks_differ() -> None:
    fields, differing = differences("w", {"a": {"b": 1, "c": []}, "d": 1}, {"a": {"b": 1}, "d": 2, "e": {}})
    assert fields == 4
    assert [(item.path, item.istiod, item.ours) for item in differing] == [
        (("a", "c"), [], ABSENT),
        (("d",), 1, 2),
        (("e",), ABSENT, {}),
    ]


def test_a_number_is_no_truth() -> None:
    assert len(differences("w", {"a": 1}, {"a": True})[1]) == 1


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        (("a", "b"), ("a", "b"), True),
        (("a", "b"), ("a", "b", "c"), False),
        (("a", "*"), ("a", "b"), True),
        (("a", "*"), ("a", "b", "c"), False),
        (("a", "out|*|x"), ("a", "out|9000|x"), True),
        (("a", "out|*|x"), ("a", "in|9000|x"), False),
        (("a", "**", "z"), ("a", "z"), True),
        (("a", "**", "z"), ("a", "b", "c", "z"), True),
        (("a", "**", "z"), ("b", "z"), False),
        (("a", "regex [a-z]+:[0-9]+"), ("a", "name:1"), True),
        (("a", "regex [a-z]+:[0-9]+"), ("a", "name.full:1"), False),
        (("a", "b.c"), ("a", "bxc"), False),
        (("a", "b[*]"), ("a", "b[ALLOW]"), True),
    ],
)
def test_paths_match_by_segments(pattern: tuple[str, ...], path: tuple[str, ...], matches: bool) -> None:
    assert entry(*pattern).explains(found(*path)) is matches


@pytest.mark.parametrize(
    ("istiod", "ours", "matches"),
    [(1, 2, True), (1, 3, False), (PRESENT, 2, True), (1, PRESENT, True), (ABSENT, 2, False), (True, 2, False)],
)
def test_both_values_count(istiod: object, ours: object, matches: bool) -> None:
    assert entry("a", istiod=istiod, ours=ours).explains(found("a")) is matches


def test_present_is_not_absent() -> None:
    assert not entry("a", istiod=PRESENT).explains(found("a", istiod=ABSENT))


def test_what_no_entry_explains_is_left_and_so_is_an_entry_that_explains_nothing() -> None:
    used, unused = entry("a"), entry("b")
    judged = judge({"sockets": [found("a"), found("c")], "redirect": [found("a")]}, [used, unused])
    assert judged.explained == 2
    assert judged.unexplained == (found("c"),)
    assert judged.unused == (unused,)


def test_an_entry_holds_in_its_runs_only() -> None:
    judged = judge({"redirect": [found("a")]}, [entry("a", runs=("sockets",))])
    assert judged.unexplained == (found("a"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {path: [a], istiod: 1, ours: 2}", "must have path, istiod, ours and reason"),
        ("- {path: [a], istiod: 1, ours: 2, reason: ''}", "must have a reason"),
        ("- {path: ['**', a], istiod: 1, ours: 2, reason: r}", "says where it begins"),
        ("- {path: [a], istiod: 1, ours: 1, reason: r}", "does not differ"),
        ("- {path: [a], istiod: 1, ours: 2, reason: r, runs: [other]}", "runs must be some of"),
        ("- {path: [a], istiod: 1, ours: 2, reason: r, why: x}", "must have path, istiod, ours and reason"),
    ],
)
def test_an_entry_out_of_form_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "differences.yaml").write_text(text)
    with pytest.raises(TableError, match=says):
        table(tmp_path / "differences.yaml")


def test_no_entry_excuses_a_whole_cluster_or_listener_that_is_configured() -> None:
    for item in table():
        assert len(item.path) > 2 or item.path[:2] != ("clusters", "*"), item
        assert item.path[-2:] != ("**", "**"), item
        assert not (item.path[-1] == "**" and item.path[1] in ("*", "inbound|*", "outbound|*") and len(item.path) == 3), item
