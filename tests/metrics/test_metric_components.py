"""Stored counts give the bits of `score_case`, for every registered metric and variant, or refuse by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from multirater.benchmark.cli import main
from multirater.core.errors import UserError
from multirater.metrics import Convention, info_of, list_metrics, list_variants, score_case
from multirater.metrics.components import components_of, load_components, save_components, score_components
from multirater.metrics.inputs import read_case
from multirater.metrics.score import evaluate, missing_input


def _cases(reference):
    rng = np.random.default_rng(12)
    shape = (9, 8)
    raters, samples = (reference.random_masks(rng, n, shape) for n in (4, 6))
    raters[1] = False
    samples[2] = False
    probs = np.where(samples, rng.uniform(0.51, 1, samples.shape), rng.uniform(0, 0.5, samples.shape))
    probs[rng.random(samples.shape) < 0.3] = 0
    maps = rng.random(raters.shape).astype(np.float32)
    labels = rng.integers(0, 4, (7, *shape))
    channels = rng.dirichlet([1, 1, 1, 1], (3, *shape)).transpose(0, 3, 1, 2)
    weights = np.arange(1.0, 7) / 21
    return {
        "samples": {"raters": raters, "samples": samples},
        "probabilities and maps": {
            "raters": raters,
            "probs": probs,
            "rater_probs": maps,
            "rater_valid": [True, True, False, True],
            "valid": rng.random(shape) < 0.8,
            "spacing": (1.0, 0.5),
        },
        "weights": {
            "raters": raters,
            "samples": samples,
            "sample_weights": weights,
            "rater_weights": [0.1, 0.2, 0.3, 0.4],
        },
        "mean map": {"raters": raters, "mean_prob": probs.mean(0).astype(np.float32), "spacing": (1.0, 2.0)},
        "class maps": {"raters": labels[:3], "samples": labels[3:], "classes": [1, 2, 3]},
        "channels": {"raters": labels[:3], "probs": channels, "classes": [1, 2, 3], "rater_probs": channels},
        "volume": {
            "raters": raters.reshape(4, 3, 3, 8),
            "probs": probs.reshape(6, 3, 3, 8),
            "spacing": (2.0, 1.0, 1.0),
        },
        "raters alone": {"raters": raters},
        "one of each": {"raters": raters[:1], "samples": samples[:1]},
        "nobody": {"raters": raters, "samples": samples, "rater_valid": [False] * 4},
        "no pixel": {"raters": raters, "samples": samples, "valid": np.zeros(shape, bool)},
    }


NAMES = list(
    _cases(__import__("types").SimpleNamespace(random_masks=lambda rng, n, shape: rng.random((n, *shape)) < 0.5))
)
VARIANTS = [*list_variants(), Convention(classes="with_background"), Convention(empty_similarity=0.0, distance="dice")]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_and_variant(reference, tmp_path, name):
    given = _cases(reference)[name]
    view = read_case(**given)
    save_components(tmp_path / "kept.npz", [components_of(view), components_of(**given, case_id="b")])
    first, second = load_components(tmp_path / "kept.npz")
    assert second.case_id == "b"
    assert {k: v.tobytes() for k, v in first.arrays.items()} == {k: v.tobytes() for k, v in second.arrays.items()}
    able = [m for m in list_metrics() if missing_input(m, view.given) is None]
    assert able
    for variant in VARIANTS:
        kept = [m for m in able if not info_of(m)["pixels"]]
        want = score_case(**given, variant=variant, metrics=None, reasons=True)
        got = score_components(second, variant=variant, reasons=True)
        assert set(got) - {"reasons"} == {m for m in want if m != "reasons" and m in kept}
        for metric in got:
            if metric != "reasons":
                assert repr(got[metric]) == repr(want[metric]), (variant, metric)  # the same bits, nan included
        assert got["reasons"] == {m: reason for m, reason in want["reasons"].items() if m in kept}


@pytest.fixture(scope="module")
def made():
    """Components by the names of their inputs."""
    return {}


@pytest.mark.parametrize("metric", list_metrics())
def test_a_metric_is_derivable_or_says_that_it_needs_pixels(reference, made, metric):
    """`info_of(...)["pixels"]` tells the truth in both directions."""
    given = dict(_cases(reference)["probabilities and maps"])
    inputs = {"mean_prob": given["probs"].mean(0)}
    inputs["mean_log"] = np.stack([np.log(1 - given["probs"] + 1e-8).mean(0), np.log(given["probs"] + 1e-8).mean(0)])
    inputs["uncertainty"] = inputs["mean_prob"]
    for group in info_of(metric)["needs"]:
        given |= {name: inputs[name] for name in group.split("|") if name in inputs and group.split("|") == [name]}
    key = frozenset(given)
    components = made[key] = made.get(key) or components_of(**given)
    if info_of(metric)["pixels"]:
        with pytest.raises(UserError, match=f"'{metric}' needs pixels"):
            score_components(components, [metric])
        view = components.view()
        with pytest.raises(UserError, match="components hold"):  # not merely marked: the counts do not suffice
            evaluate(view, [metric], strict=True)
    else:
        variant = "dpersona" if metric == "dice_each" else None  # no canonical value
        want = score_case(**given, metrics=[metric], variant=variant)
        assert repr(score_components(components, [metric], variant=variant)) == repr(want)


def test_components_are_small_and_deterministic(reference, tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.random((54, 128, 128)) < 0.3
    cases = [components_of(masks[:4], masks[4:], case_id=str(i)) for i in range(2)]
    for path in ("a.npz", "b.npz"):
        save_components(tmp_path / path, cases)
    written = (tmp_path / "a.npz").read_bytes()
    assert written == (tmp_path / "b.npz").read_bytes()
    assert len(written) < 2 * masks.size / 8 / 2  # less than half of the packed masks


def test_oracle_of_another_number_of_samples(reference):
    given = _cases(reference)["samples"]
    components = components_of(**given)
    for count in (1, 3, 50):
        got = score_components(components, ["human.oracle_ged", "human.oracle_hm_iou"], n_samples=count)
        assert got == score_case(**given, metrics=list(got), n_samples=count)


def test_what_was_not_kept_is_an_error_by_name_and_else_a_reason(reference):
    components = components_of(**_cases(reference)["samples"])
    other = Convention(thresholds=(0.25, 0.75))
    with pytest.raises(UserError, match="components hold no counts of mean_map"):
        score_components(components, ["dice_soft"], variant=other)
    got = score_components(components, variant=other, reasons=True)
    assert np.isnan(got["dice_soft"])
    assert got["reasons"]["dice_soft"].startswith("n/a: components hold no counts")
    assert got["ged"] == score_case(**_cases(reference)["samples"])["ged"]
    with pytest.raises(UserError, match="needs rater_probs"):
        score_components(components, ["dice_rater.gap"])
    with pytest.raises(UserError, match="did you mean 'ged'"):
        score_components(components, ["gedd"])
    with pytest.raises(UserError, match="pixels of raters are needed, and components hold counts only"):
        _ = components.view().raters


def test_a_stored_map_scored_once_can_be_scored_in_its_own_precision(reference):
    """BerDiff's soft Dice keeps the precision of the probabilities; of a stored map and of masks there is only one."""
    given = _cases(reference)["samples"]
    maps = {"mean_prob": given["samples"].mean(0).astype(np.float32)}
    for inputs in (given, {**given, **maps}):
        view = read_case(**inputs)
        evaluate(view, ["dice_soft", "dice_rater"])
        kept = components_of(view, every_variant=False)
        for metric in ("dice_soft", "dice_rater"):
            got = score_components(kept, [metric], variant="berdiff")
            assert repr(got) == repr(score_case(**inputs, metrics=[metric], variant="berdiff"))


def test_bad_files(tmp_path, capsys, reference):
    path = tmp_path / "kept.npz"
    save_components(path, [components_of(**_cases(reference)["samples"], case_id="a")])
    whole = dict(np.load(path))
    header = json.loads(str(whole["multirater_components"]))

    def fails(words, **changed):
        np.savez(path, **{**whole, **changed})
        with pytest.raises(SystemExit) as exit_:
            main(["score", str(path)])
        err = capsys.readouterr().err
        assert (exit_.value.code, err.count("\n")) == (2, 1)
        assert words in err

    def told(**changed):
        return {"multirater_components": np.array(json.dumps({**header, **changed}))}

    fails("components of format 99", **told(format=99))
    fails("is damaged", multirater_components=np.array("{"))
    fails("is damaged", **told(arrays=["counts 1"]))
    fails("is damaged", **told(cases=[{**header["cases"][0], "S": 9}]))
    fails("slots is not stated", **told(cases=[{k: v for k, v in header["cases"][0].items() if k != "slots"}]))
    fails("is damaged", **{"1.data": whole["1.data"][:-1]})
    fails("is damaged", **{"0.data": np.array([0, 1, 2, 9])})
    fails("holds no case", **told(cases=[], arrays=[]))
    np.savez(path, raters=np.zeros((1, 2, 2), bool))
    with pytest.raises(UserError, match="holds no components; write them with multirater score"):
        load_components(path)
    save_components(path, [components_of(**_cases(reference)["samples"], case_id="a")])
    for options in (["--classes", "1"], ["--spacing", "1,1"]):
        with pytest.raises(SystemExit):
            main(["score", str(path), *options])
        assert "are fixed" in capsys.readouterr().err
    pixels = [m for m in list_metrics() if info_of(m)["pixels"] and missing_input(m, frozenset({"samples"})) is None]
    if pixels:
        with pytest.raises(SystemExit) as exit_:
            main(["score", str(path), "--metrics", pixels[0]])
        assert exit_.value.code == 2
        assert f"{pixels[0]!r} needs pixels" in capsys.readouterr().err
