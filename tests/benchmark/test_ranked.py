"""Which outputs of a table are ranked, what is left out and why, and what follows for the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.leaderboard import sheets_of
from multirater.benchmark.ranked import TRACKS, Ranked, ranked, rankings, track_named, track_of
from multirater.benchmark.sheet import Sheet
from multirater.core.errors import UserError

N = 40
NOISE = np.random.default_rng(0).normal(0, 0.01, (6, N))


def around(mean: float, i: int = 0) -> list[float]:
    return list(mean + NOISE[i])


def sheet_of(fabricator: Any) -> Sheet:
    (sheet,) = sheets_of(fabricator.results)
    return sheet


def reasons(found: Ranked, sheet: Sheet) -> dict[tuple[str, str], str]:
    return {(sheet.row(line).method, line.output): why for line, why in found.left_out.items()}


def test_each_method_competes_with_the_output_that_the_track_prefers(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    two = {"ged": around(0.2), "dice_rater": around(0.80), "dice_soft": around(0.9)}
    own = {"ged": around(0.1, 1), "dice_rater": around(0.85, 1), "dice_soft": around(0.8)}
    f.cell("persona", {"diverse": two, "personalised": own}, n_samples={"diverse": 50, "personalised": 4},
           fallback={"diverse": ["dice_rater"]})  # fmt: skip
    f.cell("plain", {"diverse": {"ged": around(0.3, 2), "dice_rater": around(0.7, 2), "dice_soft": around(0.85, 2)},
                     "levels": {"ged": around(0.01)}}, fallback={"diverse": ["dice_rater"]})  # fmt: skip
    f.cell("human", {"oracle": {"ged": around(0.0)}})
    sheet = sheet_of(f)
    found = rankings(sheet)
    assert list(found) == ["ged", "dice_rater", "dice_soft"]
    outputs = {metric: [line.output for line in r.lines] for metric, r in found.items()}
    assert outputs == {
        "ged": ["diverse", "diverse"],  # 4 samples are not compared with 50, however good
        "dice_rater": ["personalised", "diverse"],
        "dice_soft": ["diverse", "diverse"],
    }
    assert found["ged"].n_samples == 50
    assert found["ged"].best == ("persona",)
    assert found["dice_rater"].n_samples is None
    assert reasons(found["ged"], sheet)["persona", "personalised"].startswith("the method competes with")
    # Trivial and human rows are neither ranked nor excused: they are no entrants.
    assert {key[0] for r in found.values() for key in reasons(r, sheet)} == {"persona"}


def test_a_method_with_fewer_samples_or_cases_is_named_and_not_ranked(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    for fold in (0, 1):
        f.cell("full", {"diverse": {"ged": around(0.2)}}, fold=fold)
        f.cell("other", {"diverse": {"ged": around(0.3)}}, fold=fold)
    f.cell("half", {"diverse": {"ged": around(0.1)}}, fold=0)
    for fold in (0, 1):
        f.cell("heads", {"personalised": {"ged": around(0.1)}}, fold=fold, n_samples=4)
        f.cell("few", {"diverse": {"ged": around(0.1)[:30]}}, fold=fold)
    f.attempt(f.cell("broken", None), "error", "boom")
    sheet = sheet_of(f)
    found = ranked(sheet, "ged")
    assert found.names == ("full", "other")
    assert reasons(found, sheet) == {
        ("half", "diverse"): "no result of fold 1",
        ("heads", "personalised"): "S = 4, compared at S = 50",
        ("few", "diverse"): "values on 60 of 80 cases",
        ("broken", ""): "no result",
    }
    assert found.rank(found.lines[0]) == 1
    assert found.rank(next(iter(found.left_out))) is None


def test_best_and_not_significantly_worse(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    base = np.random.default_rng(1).uniform(0.3, 0.5, N)
    f.cell("a", {"diverse": {"hm_iou": list(base + 0.30)}})
    f.cell("b", {"diverse": {"hm_iou": list(base + 0.30 - 0.001 + NOISE[0])}})
    f.cell("c", {"diverse": {"hm_iou": list(base)}})
    found = ranked(sheet_of(f), "hm_iou")
    assert (found.best, found.alike) == (("a",), ("b",))
    assert found.order == ("a", "b", "c")
    assert found.p.loc["a", "c"] == found.p.loc["c", "a"] < 1e-4
    assert found.p.loc["a", "b"] > 0.05
    assert np.isnan(np.diag(found.p.to_numpy())).all()
    assert ("a", "b") in found.joined
    assert found.stability().p_first.sum() >= 1
    assert found.stability() is found.stability()


def test_the_test_that_favours_the_worse_mean_does_not_make_it_worse(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    steady = np.full(N, 0.8)
    lucky = steady + 0.01  # better in all cases but three, which ruin its mean
    lucky[:3] = 0.0
    f.cell("lucky", {"diverse": {"hm_iou": list(lucky)}})
    f.cell("steady", {"diverse": {"hm_iou": list(steady)}})
    found = ranked(sheet_of(f), "hm_iou")
    assert found.best == ("steady",)
    assert found.pairs.significant.all()
    assert found.alike == ("lucky",)
    assert found.ranks.moves.all()


def test_seeds_are_averaged_and_worst_values_take_the_place(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    lost = [*around(0.2)[:-1], (float("nan"), "method: no samples")]
    for seed, value in ((0, 0.2), (1, 0.4)):
        f.cell("a", {"diverse": {"ged": [value] * N}}, seed=seed)
    f.cell("b", {"diverse": {"ged": lost}})
    found = ranked(sheet_of(f), "ged")
    np.testing.assert_allclose(found.table.values[0], 0.3)
    assert found.table.values[1, -1] == 2.0


def test_cases_that_the_data_leave_undefined_count_for_nobody(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    gone = [(float("nan"), "data: one rater"), *around(0.2)[1:]]
    f.cell("a", {"diverse": {"ged": gone}})
    f.cell("b", {"diverse": {"ged": [0.0, *around(0.3, 1)[1:]]}})
    found = ranked(sheet_of(f), "ged")
    assert found.table.n == N - 1
    assert not np.isnan(found.table.values).any()


def test_order_without_one_reader(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    for method, one, two in (("a", 0.9, 0.5), ("b", 0.6, 0.6)):
        each = {"1": [one] * N, "2": [two] * N}
        f.cell(method, {"personalised": {"dice_rater.each": each, "dice_rater": [(one + two) / 2] * N}})
    found = ranked(sheet_of(f), "dice_rater").without_a_rater
    assert found is not None
    assert found.smallest == ("1", -1.0)  # without the first reader the second method is the better one


def test_one_method_has_ranks_of_nothing(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    f.cell("only", {"diverse": {"ged": around(0.2)}})
    found = ranked(sheet_of(f), "ged")
    assert (found.best, found.alike, found.rank(found.lines[0])) == ((), (), None)
    assert found.pairs.empty
    assert found.friedman.note.startswith("no test: 1 method")


def test_what_cannot_be_ranked_says_so(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": around(0.2), "diversity_samples": around(0.2)}})
    sheet = sheet_of(f)
    with pytest.raises(UserError, match="no better direction"):
        ranked(sheet, "diversity_samples")
    with pytest.raises(UserError, match="nothing to rank by hm_iou"):
        ranked(sheet, "hm_iou")
    with pytest.raises(UserError, match="diversified"):
        track_named("diversifed")
    assert track_named("mean") is TRACKS["calibrated mean"]
    assert track_of("iou_rater").name == "personalised"
    assert track_of("ged.dice").name == "diversified"


def test_equal_configurations_keep_names_apart(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": around(0.2)}}, options={"width": 1})
    f.cell("a", {"diverse": {"ged": around(0.3)}}, options={"width": 2})
    found = ranked(sheet_of(f), "ged")
    assert found.names == ("a (method.width=1)", "a (method.width=2)")
    sheet = sheet_of(f)
    both = ranked(
        sheet,
        "ged",
        lines=[
            *sheet.lines,
        ],
    )
    assert both.names == found.names


def test_configurations_that_differ_in_a_fourth_option_only_are_told_apart(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    for i, (d, e) in enumerate([(1, 1), (2, 1), (2, 2)]):
        f.cell("a", {"diverse": {"ged": around(0.2 + i / 10)}}, options={"a": 1, "b": 1, "c": 1, "d": d, "e": e})
    f.cell("a", {"diverse": {"ged": around(0.5)}}, options={"a": 2, "b": 2, "c": 2, "d": 2, "e": 2})
    f.cell("b", {"diverse": {"ged": around(0.6)}}, options={"a": 1})
    f.cell("b", {"diverse": {"ged": around(0.7)}}, options={"a": "1"})
    names = [row.name for row in sheet_of(f).group.rows]
    first = "method.a=1, method.b=1, method.c=1"
    assert sorted(names) == sorted(
        [
            f"a ({first}, method.d=1 and 1 more)",
            f"a ({first}, method.d=2, method.e=1)",
            f"a ({first}, method.d=2, method.e=2)",
            "a (method.a=2, method.b=2, method.c=2 and 2 more)",
            "b (method.a=1)",
            'b (method.a="1")',
        ]
    )
    assert set(ranked(sheet_of(f), "ged").names) == set(names)


def test_the_best_against_all_others_is_a_part_of_all_pairs(fabricate: Callable[..., Any]) -> None:
    f = fabricate()
    for i, method in enumerate("abcd"):
        f.cell(method, {"diverse": {"ged": around(0.2 + i / 100, i)}})
    found = ranked(sheet_of(f), "ged")
    pairs = found.pairs.set_index(["method_a", "method_b"])
    for name, line in found.to_best.iterrows():
        (best,) = found.best
        sign, whole = (1, pairs.loc[name, best]) if (name, best) in pairs.index else (-1, pairs.loc[best, name])
        assert line["difference"] == sign * whole["difference"]
        ends = sorted((sign * whole["ci_low"], sign * whole["ci_high"]))
        assert [line["ci_low"], line["ci_high"]] == pytest.approx(ends, abs=1e-12)
        assert line["p_holm"] == whole["p_holm"]
        assert line["significant"] == whole["significant"]
