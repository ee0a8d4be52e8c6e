"""`multirater list`, `info` and `prepare` as a user calls them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Annotated, Literal

import numpy as np
import pytest
from multirater.benchmark.cards import card, type_text
from multirater.benchmark.catalogue import KINDS, METHOD_FACTS, _capabilities, _extra_note, find
from multirater.benchmark.cli import main
from multirater.core.errors import UserError
from multirater.core.registry import Entry
from multirater.datasets import DATASETS, open_dataset
from multirater.methods import METHODS, Method
from PIL import Image
from pydantic import Field

RESERVED = {"ssn", "mose", "hprob_unet", "cimd", "proseg", "diffoseg"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "cache"


@pytest.fixture
def multirater(capsys):
    """Call the command; exit code, stdout, stderr."""

    def call(*argv):
        with pytest.raises(SystemExit) as done:
            main(list(argv))
        out = capsys.readouterr()
        return done.value.code, out.out, out.err

    return call


def listed(multirater, *argv):
    code, out, _ = multirater("list", *argv, "--json")
    assert code == 0
    return json.loads(out)


# -- list ---------------------------------------------------------------------------------------


def test_list_imports_nothing_heavy():
    code = (
        "import sys\nfrom multirater.benchmark.cli import main\n"
        "try:\n    main(['list'])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prob_unet" in done.stdout


@pytest.mark.perf
def test_list_takes_less_than_half_a_second():
    def seconds():
        """Of processor time, which does not grow with the load of the machine."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "multirater.benchmark", "list"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5


def test_list_shows_every_kind(multirater):
    tables = listed(multirater)
    assert tuple(tables) == KINDS
    names = {kind: [row["name"] for row in rows] for kind, rows in tables.items()}
    assert {"dpersona", "prob_unet", "unet_soft"} <= set(names["methods"])
    assert {"lidc-contours", "synthetic", "folder"} <= set(names["datasets"])
    assert "ged" in names["metrics"]
    assert names["presets"] == ["paper", "quick", "smoke"]
    assert "local" in names["executors"]
    for rows in tables.values():
        for row in rows:
            assert row["origin"], row
            assert row["summary"], row
    only = listed(multirater, "methods")
    assert only == {"methods": tables["methods"]}


def test_list_states_capabilities(multirater):
    rows = {row["name"]: row for row in listed(multirater, "methods")["methods"]}
    assert rows["dpersona"]["capabilities"] == "samples, raters; needs identity"
    assert rows["unet_majority"]["capabilities"] == "mean; multi-class"
    assert not RESERVED & set(rows)
    metrics = {row["name"]: row["capabilities"] for row in listed(multirater, "metrics")["metrics"]}
    assert metrics["ged"] == "↓ 0 … 2, depends on S"
    assert metrics["dice_rater.each"].endswith("per rater")


def test_list_says_what_is_not_prepared(multirater):
    def notes():
        return {row["name"]: row["note"] for row in listed(multirater, "datasets")["datasets"]}

    assert notes()["synthetic"] == "made at first use"
    assert "multirater prepare folder --root" in notes()["folder"]
    open_dataset("synthetic", cases=8, size=32).prepare()
    assert notes()["synthetic"] == "prepared"


def test_a_missing_extra_is_named():
    assert _extra_note(Entry("slurm", "x:Y", "o", {"requires": "no_such_module", "extra": "slurm"})) == (
        "needs pip install 'multirater[slurm]'"
    )
    assert _extra_note(Entry("slurm", "x:Y", "o", {"requires": "json", "extra": "slurm"})) == ""


def test_list_for_people_fits_in_lines(multirater):
    code, out, _ = multirater("list", "methods")
    assert code == 0
    assert "D-Persona" in out
    code, _, err = multirater("list", "method")
    assert code == 2
    assert "'methods'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", METHODS.names())
def test_listed_capabilities_are_those_of_the_class(name):
    cls, info = METHODS.get(name), METHODS.entry(name).info
    for key in METHOD_FACTS:
        assert info.get(key, METHOD_FACTS[key]) == getattr(cls, key), key


def test_capabilities_of_a_third_party():
    assert {key: getattr(Method, key) for key in METHOD_FACTS} == METHOD_FACTS

    def said(target, **info):
        return _capabilities("methods", Entry("mine", target, "o", info))

    class Mine(Method):
        gives_samples = True
        missing_raters = False
        spatial_dims = (2, 3)

    assert said("mine:Mine") == "see info"
    assert said("mine:Mine", summary="mine", missing_raters=False) == "mean; no missing raters"
    assert said(Mine, summary="mine") == "samples; no missing raters; 2D and 3D"


@pytest.mark.parametrize("name", DATASETS.names())
def test_listed_facts_of_data_are_those_of_the_class(name):
    cls, info = DATASETS.get(name), DATASETS.entry(name).info
    assert info["embedded"] == cls.embedded
    for key in ("title", "licence", "how_to_get"):
        assert getattr(cls, key), key


# -- info ---------------------------------------------------------------------------------------


def test_every_listed_entry_has_a_card(multirater):
    for kind, rows in listed(multirater).items():
        for row in rows:
            one = card(kind, row["name"])
            assert (one["name"], one["kind"]) == (row["name"], kind[:-1])
            json.dumps(one, allow_nan=False)


def test_info_of_a_method(multirater):
    code, out, _ = multirater("info", "prob_unet", "--json")
    assert code == 0
    (one,) = json.loads(out)
    assert "1806.05034" in one["paper"]
    assert one["gives"] == ["samples"]
    assert (one["multiclass"], one["missing_raters"], one["needs_identity"]) == (False, True, False)
    options = {o["option"]: o for o in one["options"]}
    assert (options["latent"]["type"], options["latent"]["default"]) == ("int ≥ 1", "6")
    assert options["latent"]["meaning"]
    assert {d["subject"] for d in one["deviations"]}
    code, out, _ = multirater("info", "prob_unet")
    assert code == 0
    for word in ("prob_unet (method)", "latent", "deviations", "authors:", "ours:"):
        assert word in out


def test_info_of_data_metric_preset_executor(multirater):
    for name, words in {
        "synthetic": ["synthetic data", "raters", "int ≥ 1, ≤ 16", "cv4, fixed"],
        "folder": ["multirater.yaml", "root"],
        "ged": ["lower", "two empty masks have distance 0"],
        "smoke": ["(preset)", "train:"],
        "local": ["(executor)"],
    }.items():
        code, out, _ = multirater("info", name)
        assert code == 0
        for word in words:
            assert word in out, (name, word)


def test_unknown_names_get_the_nearest_of_any_kind(multirater):
    assert find("ged") == [("metrics", "ged")]
    for given, near in [("prob_une", "prob_unet"), ("sinthetic", "synthetic"), ("quik", "quick")]:
        with pytest.raises(UserError, match=f"did you mean {near!r}"):
            find(given)
    code, _, err = multirater("info", "xyz")
    assert code == 2
    assert err == "multirater: unknown name 'xyz': see them all with multirater list\n"


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (Annotated[int, Field(ge=1, le=9), "help"], "int ≥ 1, ≤ 9"),
        (Annotated[float | None, Field(gt=0)], "float > 0 | null"),
        (Annotated[str | None, "help"], "str | null"),
        (Literal["a", "b"], "a | b"),
        (Annotated[Literal["a"] | None, "help"], "a | null"),
        (tuple[int, ...], "[int, …]"),
        (list[str], "[str]"),
        (dict[str, int], "{str, int}"),
        (int | tuple[int, int] | None, "int | [int, int] | null"),
    ],
)
def test_types_read_as_values_are_written(hint, text):
    assert type_text(hint) == text


# -- prepare ------------------------------------------------------------------------------------


def test_prepare_states_the_facts(multirater, cache):
    code, out, err = multirater("prepare", "synthetic", "--set", "cases=40", "--set", "dataset.missing=0.2", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    data = open_dataset("synthetic", cases=40, missing=0.2)
    assert (facts["cases"], facts["patients"], facts["raters"]) == (40, 20, 4)
    assert facts["fingerprint"] == data.fingerprint
    assert facts["notice"] == "synthetic data"
    assert facts["cache"] == str(data.cache_folder)
    assert facts["missing_masks"] == (~data.store.rater_valid).sum() > 0
    assert [row["fold"] for row in facts["splits"]] == [0, 1, 2, 3]
    for row in facts["splits"]:
        split = data.split(row["fold"])
        assert (row["train"], row["val"], row["test"]) == (len(split.train), len(split.val), len(split.test))
        assert row["hash"] == split.hash
        assert row["test"] == 2 * row["test_patients"]
    assert sum(row["test"] for row in facts["splits"]) == 40
    code, out, _ = multirater("prepare", "synthetic", "--set", "cases=40", "--set", "split=fixed")
    assert code == 0
    for word in ("synthetic data", "40 of 20 patients", "identity synthetic", "fixed"):
        assert word in out


def write_folder(root, masks):
    for case, raters in masks.items():
        (root / case).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / case / "image.png")
        for rater, mask in raters.items():
            Image.fromarray(mask.astype(np.uint8)).save(root / case / f"{rater}.png")
    (root / "multirater.yaml").write_text('image: "{case}/image.png"\nmask: "{case}/{rater:[abc]}.png"\n')


def test_prepare_measures_inter_rater_dice(multirater, tmp_path):
    left, half, empty = np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 8))
    left[:, :4], half[:4, :4] = 1, 1
    # case 1: pairs 2/3, 0, 0; case 2: two empty masks agree; case 3: one rater only, left out
    write_folder(
        tmp_path / "d",
        {"1": {"a": left, "b": half, "c": empty}, "2": {"a": empty, "c": empty}, "3": {"b": half}, "4": {}},
    )
    code, out, _ = multirater("prepare", "folder", "--root", str(tmp_path / "d"), "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["inter_rater_dice"] == pytest.approx((2 / 9 + 1) / 2)
    assert facts["left_out"] == ["4"]
    assert facts["missing_masks"] == 3
    code, out, _ = multirater("prepare", "folder", "--root", str(tmp_path / "d"))
    assert "no patient declared" in out
    assert "left out" in out


def test_inter_rater_dice_of_several_classes_is_their_mean(multirater, tmp_path):
    a, b = np.zeros((8, 8)), np.zeros((8, 8))
    a[:4], b[:2] = 1, 1
    a[6:], b[6:] = 2, 2
    write_folder(tmp_path / "d", {"1": {"a": a, "b": b}})
    yaml = tmp_path / "d" / "multirater.yaml"
    yaml.write_text(yaml.read_text() + "foreground: {1: 1, 2: 2}\n")
    _, out, _ = multirater("prepare", "folder", "--root", str(tmp_path / "d"), "--json")
    assert json.loads(out)["inter_rater_dice"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["synthtic"], ["'synthetic'"]),
        (["synthetic", "--set", "csaes=3"], ["dataset.csaes", "'cases'"]),
        (["synthetic", "--set", "cases=few"], ["dataset.cases = 'few'"]),
        (["synthetic", "--set", "method.latent=3"], ["'method'", "dataset"]),
        (["synthetic", "--set", "cases"], ["a.b=c"]),
        (["synthetic", "--root", "/x"], ["dataset.root"]),
        (["folder"], ["--root"]),
        (["folder", "--root", "/no/such/place"], ["/no/such/place", "not a folder"]),
    ],
)
def test_mistakes_exit_with_2_and_one_sentence(multirater, argv, words):
    code, out, err = multirater("prepare", *argv)
    assert (code, out) == (2, "")
    assert err.startswith("multirater: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
