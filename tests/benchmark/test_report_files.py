"""The HTML report as files: what stands in its data, what is kept out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from multirater.benchmark.cli import main
from multirater.benchmark.commands.report import command
from multirater.benchmark.figures import draw_figures
from multirater.benchmark.pseudonyms import pseudonym, pseudonyms
from multirater.benchmark.webreport import write_report
from multirater.benchmark.webreport.records import without_paths
from multirater.core.errors import UserError
from PIL import Image

Make = Callable[..., Any]


def read(folder: Path, name: str) -> Any:
    """The value in a data script."""
    text = (folder / "data" / f"{name}.js").read_text()
    return json.loads(text.partition("=")[2].rstrip().rstrip(";"))


@pytest.fixture(scope="module")
def written(make_board: Make, fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with two figures."""
    results = make_board(fabricate_at(tmp_path_factory.mktemp("report") / "results"))
    draw_figures(results, ["diversity", "qualitative"], methods=())
    return write_report(results).parent


def test_rows_and_numbers(written: Path) -> None:
    board = read(written, "board")
    lines = {(line["name"], line["output"]): line for line in board["lines"]}
    assert set(lines) == {("net", "diverse"), ("net", "personalised"), ("plain", "consensus"), ("missing", "")}
    net = lines["net", "diverse"]
    assert net["S"] == 8
    assert net["seeds"] == [0, 1]
    assert net["scores"]["dice_rater"][0] == pytest.approx(0.8)
    assert net["scores"]["dice_rater"][2] == 10
    assert lines["missing", ""]["missing"] == 1
    assert lines["net", "personalised"]["place"] == {"dice_rater": "best"}
    columns = board["groups"][0]["columns"]
    assert [c["metric"] for c in columns["personalised"]][:2] == ["dice_rater", "dice_rater[rater 1]"]
    assert columns["diversified"][0]["way"] == "lower"
    assert columns["calibrated mean"][0]["metric"] == "dice_soft"


def test_case_values_stand_beside_their_pseudonyms(written: Path, data: Any) -> None:
    dataset, _, cases, patients, _ = data
    board = read(written, "board")
    row = read(written, f"row-{next(line['row'] for line in board['lines'] if line['name'] == 'net')}")
    shown = row["cases"]
    assert shown["ids"] == sorted(shown["ids"])  # not in the order of the ids
    expected = {pseudonym("case", dataset.fingerprint, c): p for c, p in zip(cases, patients, strict=True)}
    assert dict(zip(shown["ids"], shown["patients"], strict=True)) == {
        c: pseudonym("patient", dataset.fingerprint, p) for c, p in expected.items()
    }
    values = dict(zip(shown["ids"], shown["outputs"]["personalised"]["dice_rater[rater 1]"], strict=True))
    assert values == pytest.approx(dict.fromkeys(expected, 0.9))


def test_nothing_leaks(written: Path, data: Any) -> None:
    _, _, cases, patients, _ = data
    texts = {p: p.read_text() for p in written.rglob("*") if p.suffix in (".js", ".csv", ".html", ".txt")}
    assert len(texts) > 5
    for path, text in texts.items():
        for name in (*cases, *patients):
            assert f'"{name}"' not in text, path
            assert f",{name}," not in text, path
        assert str(written.parents[1]) not in text, path
        assert "http://" not in text
        assert "https://" not in text
    assert not list(written.glob("figures/qualitative*"))  # its picture shows images and ids
    assert list(written.glob("figures/diversity__synthetic.*"))
    assert not list(written.glob("samples/*-image.png"))


def test_samples_are_the_stored_ones(written: Path) -> None:
    board = read(written, "board")
    row = read(written, f"row-{next(line['row'] for line in board['lines'] if line['name'] == 'net')}")
    assert [s["percentile"] for s in row["samples"]] == [10, 30, 50, 70, 90]
    one = row["samples"][2]
    assert one["labels"][:2] == ["mean map > 0.5", "for rater 1"]
    assert one["labels"][-1] == "sample 8 of 8"
    assert len(one["labels"]) == 1 + 3 + 8
    with Image.open(written / one["sprite"]) as sprite:
        assert sprite.size == (one["across"] * one["width"], 3 * one["height"])
        pixels = np.asarray(sprite)
    # The method is a perfect sampler: the map for the first reader is that reader's mask, whose edge is drawn too.
    with Image.open(written / one["readers"]) as image:
        readers = np.asarray(image)
    mine = pixels[: one["height"], one["width"] : 2 * one["width"]]
    assert ((mine[..., 3] == 255) <= (readers[..., 3] == 255)).all()
    assert (mine[..., 3] > 0).any()


def test_ids_and_images_only_where_they_are_asked_for(
    make_board: Make, fabricate: Make, data: Any, tmp_path: Path
) -> None:
    results = make_board(fabricate())
    draw_figures(results, ["qualitative"], methods=["plain"])
    folder = write_report(results, tmp_path / "out", with_ids=True, with_images=True).parent
    board = read(folder, "board")
    row = read(folder, f"row-{next(line['row'] for line in board['lines'] if line['name'] == 'plain')}")
    assert set(row["cases"]["ids"]) == set(data[2])
    assert (folder / row["samples"][0]["image"]).is_file()
    assert (folder / row["figures"][0]["png"]).is_file()
    assert row["figures"][0]["kind"] == "qualitative"
    plain = write_report(results, tmp_path / "out", samples=False).parent  # an older report is replaced as a whole
    assert not (plain / "samples").exists()
    assert not (plain / "figures").exists()


def test_wrong_places_are_refused(fabricate: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    f = fabricate()
    with pytest.raises(UserError, match="nothing was run there yet"):
        write_report(f.results)
    f.cell("net", {"diverse": {"ged": [0.2]}})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds no report"):
        write_report(f.results, other)
    assert (other / "thesis.tex").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_report(f.results, tmp_path / "file")
    with pytest.raises(SystemExit) as end:
        main(["report", "--results", str(tmp_path / "nowhere")])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_command_without_figures(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.2]}})
    f.cell("gone", None)
    f.attempt(f.cell("broken", None), "error", f"cannot read {f.results}/secret/image.png: no such file")
    done = CliRunner().invoke(command, ["--results", str(f.results)])
    assert done.exit_code == 0, done.output
    folder = Path(done.output.strip()).parent
    board = read(folder, "board")
    assert any("run `multirater figures`" in note for note in board["notes"])
    broken = read(folder, f"row-{next(line['row'] for line in board['lines'] if line['name'] == 'broken')}")
    assert broken["cells"][0]["why"] == "cannot read image.png: no such file"


def test_paths_are_cut_to_their_last_part() -> None:
    assert without_paths("see /home/me/run 1.txt, or ~/x/y.csv") == "see run 1.txt, or y.csv"
    assert without_paths(r"C:\data\a.png is 3/4 full; dpersona/lidc/f0") == "a.png is 3/4 full; dpersona/lidc/f0"


def test_pseudonyms_do_not_meet() -> None:
    assert pseudonym("case", "a", "1") != pseudonym("case", "b", "1")
    assert pseudonym("case", "a", "1") != pseudonym("patient", "a", "1").replace("patient", "case")
    found = pseudonyms("case", "a", ["2", "1", "2"])
    assert list(found) == ["1", "2"]
    assert found["1"] == pseudonym("case", "a", "1")
