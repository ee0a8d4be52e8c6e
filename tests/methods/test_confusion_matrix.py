from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.core.errors import UnsupportedPair, UserError
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.annotator_matrices import ALL, GlobalMatrices, PixelMatrices
from multirater.methods.confusion_matrix import ConfusionMatrix
from safetensors.torch import load, save
from torch import Tensor, nn

NAMES = ("cm_global", "cm_pixel")
SMALL: dict[str, Any] = {"backbone": "unet_small", "widths": [16, 16]}
KINDS: dict[str, dict[str, Any]] = {
    "binary": {},
    "exclusive": {"classes": 3},
    "overlapping": {"classes": 2, "overlapping": True},
}


def describe(raters: int = 3, identity: str = "derived", size: tuple[int, int] = (16, 16), **more: Any):
    ids = tuple(str(r + 1) for r in range(raters))
    return DataDescription(
        "tiny",
        more.pop("channels", 1),
        more.pop("classes", 1),
        raters,
        ids,
        identity,  # type: ignore[arg-type]
        2,
        size,
        **more,
    )


def build(name: str, raters: int = 3, kind: str = "binary", **options: Any) -> ConfusionMatrix:
    torch.manual_seed(0)
    return create_method(name, describe(raters, **KINDS[kind]), **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3, kind: str = "binary") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    classes, overlapping = KINDS[kind].get("classes", 1), kind == "overlapping"
    shape = (size, raters, classes, 16, 16) if overlapping else (size, raters, 16, 16)
    masks = torch.randint(2 if overlapping else classes + 1, shape, generator=generator)
    return {
        "image": torch.rand(size, 1, 16, 16, generator=generator),
        "masks": masks.to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"fidelity": "authors"}, {"fidelity": "pionono"}, {"annotators": "one"}])
def test_every_parameter_gets_a_gradient(name: str, kind: str, options: dict[str, Any]) -> None:
    method = build(name, kind=kind, **options)
    batch = make_batch(8, kind=kind)
    if method.one_annotator:  # so that every annotator is drawn
        batch["rater_valid"] = F.one_hot(torch.arange(8) % 3, 3).bool()
    loss, logged = method.training_step(batch)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())
    groups = method.parameters_for("main")
    assert sum(len(g["params"]) for g in groups) == len(list(method.parameters()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_probabilities(name: str, kind: str) -> None:
    channels = {"binary": (), "exclusive": (4,), "overlapping": (2,)}[kind]
    for raters in (1, 2, 20):
        method = build(name, raters, kind, mix="probs" if raters < 20 else "logits")
        out = method.predict(torch.rand(2, 1, 18, 21), 5)
        assert out.samples is None
        assert out.raters.shape == (2, raters, *channels, 18, 21)
        assert out.mean.shape == (2, *channels, 18, 21)
        for maps in (out.raters, out.mean):
            assert ((maps >= 0) & (maps <= 1)).all()
        if kind == "exclusive":
            torch.testing.assert_close(out.raters.sum(2), torch.ones(2, raters, 18, 21))
        assert method.training
        loss, _ = method.training_step(make_batch(raters=raters, kind=kind))
        assert torch.isfinite(loss)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"annotators": "one"}, {"fidelity": "pionono"}])
def test_missing_raters_have_no_influence(name: str, options: dict[str, Any]) -> None:
    method = build(name, **options)
    batch = make_batch()
    batch["rater_valid"][:, 1] = False
    batch["rater_valid"][0] = False
    gradients = []
    for fill in (0, 1):
        given = {**batch, "masks": batch["masks"].clone()}
        given["masks"][~batch["rater_valid"]] = fill
        one = copy.deepcopy(method)
        torch.manual_seed(3)
        loss, _ = one.training_step(given)
        loss.backward()
        assert torch.isfinite(loss)
        gradients.append([p.grad for p in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    absent = [p.grad[1] for n, p in one.named_parameters() if n.startswith("matrices.")]
    assert all((g == 0).all() for g in absent)
    batch["rater_valid"][:] = False
    loss, _ = method.training_step(batch)
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_annotations_weigh_the_same_wherever_they_are_missing() -> None:
    """The loss of incomplete data is the sum over annotations, over the number of images."""
    method = build("cm_global").double()
    batch = make_batch()
    images = batch["image"].double()
    batch["rater_valid"] = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]]).bool()
    method.eval()
    features = method.trunk(images)
    logits = method.logits(features)
    data, trace = method.loss_terms(features, logits, batch["masks"].unsqueeze(2), batch["rater_valid"])
    matrices = method.matrices.matrices()[:, 0]
    wanted_data, wanted_trace = 0.0, 0.0
    for b in range(4):
        for r in range(3):
            if batch["rater_valid"][b, r]:
                seen = torch.einsum("ij,jhw->ihw", matrices[r], logits[b, 0].softmax(0))
                wanted_data += F.nll_loss(seen.log()[None], batch["masks"][b, r][None].long()) / 4
                wanted_trace += matrices[r].trace() / 4
    torch.testing.assert_close(data, wanted_data)
    torch.testing.assert_close(trace, wanted_trace)


# -- vectorised against literal -------------------------------------------------------------------


def literal_head(heads: PixelMatrices, rater: int) -> nn.Sequential:
    """One annotator's network of separate layers."""
    layers: list[nn.Module] = []
    for block in heads.blocks:
        weight = block.conv.weight[rater]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        norm, slope = nn.InstanceNorm2d(weight.shape[0], affine=True), nn.PReLU()
        with torch.no_grad():
            conv.weight.copy_(weight)
            norm.weight.copy_(block.scale[rater])
            norm.bias.copy_(block.shift[rater])
            slope.weight.fill_(block.slope[rater])
        layers += [conv, norm, slope]
    last = nn.Conv2d(heads.last.weight.shape[2], heads.last.weight.shape[1], 1)
    with torch.no_grad():
        last.weight.copy_(heads.last.weight[rater])
        last.bias.copy_(heads.last.bias[rater])
    return nn.Sequential(*layers, last).double()


def varied(module: nn.Module) -> Any:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module.double()


@pytest.mark.parametrize("form", ["softmax", "softplus"])
def test_grouped_heads_are_separate_networks(form: str) -> None:
    torch.manual_seed(0)
    labels, raters = 3, 4
    heads = varied(PixelMatrices(raters, 1, labels, 6, 5, form))  # type: ignore[arg-type]
    features = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    truth = torch.rand(2, 1, labels, 7, 9, dtype=torch.float64)
    literal = []
    for rater in range(raters):
        raw = literal_head(heads, rater)(features).view(2, labels, labels, 7, 9)  # channel i·C + j
        positive = raw.exp() if form == "softmax" else F.softplus(raw)
        literal.append(positive / positive.sum(1, keepdim=True))
    got = heads.matrices(features)
    torch.testing.assert_close(got[:, :, 0], torch.stack(literal, 1))

    pixels = torch.stack(literal, 1).movedim((2, 3), (-2, -1)).reshape(-1, labels, labels)
    vectors = truth.movedim(2, -1).expand(-1, raters, -1, -1, -1).reshape(-1, labels, 1)
    mixed = torch.bmm(pixels, vectors).view(2, raters, 7, 9, labels).movedim(-1, 2)
    seen, trace = heads(features, truth)
    torch.testing.assert_close(seen[:, :, 0], mixed)
    traces = [[literal[r][b].diagonal(dim1=0, dim2=1).sum(-1).mean().item() for r in range(raters)] for b in range(2)]
    torch.testing.assert_close(trace, torch.tensor(traces, dtype=torch.float64))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("pixel", [False, True])
def test_one_annotator_an_image_is_a_choice_of_all(groups: int, pixel: bool) -> None:
    torch.manual_seed(0)
    made = PixelMatrices(4, groups, 2, 6, 5) if pixel else GlobalMatrices(4, groups, 2)
    matrices = varied(made)
    features = torch.randn(3, 6, 7, 9, dtype=torch.float64)
    truth = torch.rand(3, groups, 2, 7, 9, dtype=torch.float64)
    who = torch.tensor([2, 0, 2])
    every, traces = matrices(features, truth, ALL)
    one, trace = matrices(features, truth, who)
    rows = torch.arange(3)
    torch.testing.assert_close(one, every[rows, who].unsqueeze(1))
    torch.testing.assert_close(trace, traces[rows, who].unsqueeze(1))
    part, some = matrices(features, truth, slice(1, 3))
    torch.testing.assert_close(part, every[:, 1:3])
    torch.testing.assert_close(some, traces[:, 1:3])


def test_global_matrices_mix_every_pixel() -> None:
    torch.manual_seed(0)
    matrices = varied(GlobalMatrices(3, 2, 4))
    truth = torch.rand(2, 2, 4, 5, 6, dtype=torch.float64)
    seen, _ = matrices(torch.empty(0), truth)
    table = matrices.matrices()
    for b in range(2):
        for r in range(3):
            for g in range(2):
                for y in range(5):
                    torch.testing.assert_close(seen[b, r, g, :, y, 2], table[r, g] @ truth[b, g, :, y, 2])


def test_prediction_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build("cm_pixel", 5)
    images = torch.rand(2, 1, 16, 16)
    whole = method.predict(images)

    def one_by_one(n: int, *_: Any) -> list[slice]:
        return [slice(i, i + 1) for i in range(n)]

    monkeypatch.setattr("multirater.methods.confusion_matrix.chunks", one_by_one)
    torch.testing.assert_close(method.predict(images).raters, whole.raters)


# -- behaviour ------------------------------------------------------------------------------------


def planted(tables: Tensor, images: int, labels: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images with a ramp as second channel, truths of bands and discs, annotations by the matrices R×C×C×W of the
    columns of the image."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre = torch.rand(images, 2, generator=generator) * 8 + 4
    distance = ((row - centre[:, :1, None]) ** 2 + (column - centre[:, 1:, None]) ** 2).sqrt()
    truth = (torch.stack([distance < radius for radius in (7.0, 4.0)][: labels - 1]).sum(0)).long()
    image = 0.4 * truth + 0.15 * torch.randn(truth.shape, generator=generator)
    ramp = (column / 15).expand(images, -1, -1)
    chances = tables[:, :, truth, torch.arange(16)]  # R×C×N×H×W: row given the truth, at the columns
    uniform = torch.rand(images, len(tables), 1, 16, 16, generator=generator)
    said = (uniform > chances.permute(2, 0, 1, 3, 4).cumsum(2)[:, :, :-1]).sum(2)
    return torch.stack([image, ramp], 1), truth, said.to(torch.uint8)


def symmetric(diagonals: tuple[float, ...], labels: int) -> Tensor:
    """R×C×C×16, equal at every column of the image."""
    tables = [
        torch.full((labels, labels), (1 - d) / (labels - 1)).fill_diagonal_(d).unsqueeze(-1).expand(-1, -1, 16)
        for d in diagonals
    ]
    return torch.stack(tables)


def fit(name: str, images: Tensor, annotations: Tensor, labels: int, steps: int, **options: Any) -> ConfusionMatrix:
    data = describe(annotations.shape[1], channels=2, classes=labels - 1)
    torch.manual_seed(0)
    method = create_method(name, data, **{**SMALL, "output_bias": 0.0, "trace_warmup": steps // 4, **options})
    groups = [{**g, "lr": 5e-3 * g.pop("lr_scale", 1.0)} for g in method.parameters_for("main")]
    optimiser = torch.optim.Adam(groups)
    for _ in range(steps):
        chosen = torch.randperm(len(images))[:8]
        batch = {
            "image": images[chosen],
            "masks": annotations[chosen],
            "rater_valid": torch.ones(8, annotations.shape[1], dtype=torch.bool),
        }
        optimiser.zero_grad()
        loss, _ = method.training_step(batch)
        loss.backward()
        optimiser.step()
    return method


DIAGONALS = (0.95, 0.8, 0.6)


@pytest.mark.parametrize("labels", [2, 3])
def test_planted_matrices_are_recovered(labels: int) -> None:
    tables = symmetric(DIAGONALS, labels)
    images, truth, annotations = planted(tables, 48, labels)
    method = fit("cm_global", images, annotations, labels, 200)
    found = method.matrices.matrices()[:, 0]
    assert (found - tables[..., 0]).abs().max() < 0.06
    reliability = found.diagonal(dim1=1, dim2=2).mean(1)
    assert reliability.argsort(descending=True).tolist() == [0, 1, 2]

    mean = method.predict(images).mean
    estimate = mean.argmax(1) if labels > 2 else (mean > 0.5).long()
    votes = F.one_hot(annotations.long(), labels).sum(1)
    majority = votes.argmax(-1)
    assert (estimate != truth).float().mean() < 0.5 * (majority != truth).float().mean()
    # and the maps of the annotators are what they say on average
    if labels == 2:
        maps = method.predict(images).raters
        inside = [maps[:, r][truth == 1].mean().item() for r in range(3)]
        assert inside == pytest.approx(list(DIAGONALS), abs=0.06)


@pytest.mark.parametrize("options", [{"trace_sign": -1, "trace_weight": 1.0}, {"fidelity": "pionono"}])
def test_maximising_the_trace_pins_annotators_to_the_identity(options: dict[str, Any]) -> None:
    images, _, annotations = planted(symmetric(DIAGONALS, 2), 24, 2)
    method = fit("cm_global", images, annotations, 2, 100, **options)
    assert method.matrices.matrices().diagonal(dim1=2, dim2=3).min() > 0.95


def test_matrices_of_pixels_follow_the_place() -> None:
    """The second annotator errs on the left half of every image only."""
    tables = symmetric((0.95, 0.95), 2)
    tables[1, :, :, :8] = symmetric((0.6,), 2)[0, :, :, :8]
    images, truth, annotations = planted(tables, 96, 2)
    method = fit("cm_pixel", images, annotations, 2, 120, matrix_width=8)
    with torch.no_grad():
        method.eval()
        matrices = method.matrices.matrices(method.trunk(images))[:, :, 0]
    # the column of a truth can be known only where that truth is
    right_answer = matrices.diagonal(dim1=2, dim2=3).movedim(-1, 2)  # N×R×C×H×W
    at_truth = right_answer.gather(2, truth[:, None, None].expand(-1, 2, -1, -1, -1))[:, :, 0]
    left, right = at_truth[..., 1:7].mean((0, 2, 3)), at_truth[..., 9:15].mean((0, 2, 3))
    found = torch.stack([left[0], right[0], left[1], right[1]])
    torch.testing.assert_close(found, torch.tensor([0.95, 0.95, 0.6, 0.95]), rtol=0, atol=0.06)
    average = method.average_matrices(images)
    assert average.shape == (96, 2, 1, 2, 2)
    torch.testing.assert_close(average.sum(-2), torch.ones(96, 2, 1, 2))


def test_sign_of_the_trace_changes_after_the_warmup() -> None:
    method = build("cm_global", trace_warmup=2, trace_weight=10.0)
    batch = make_batch()
    signs = []
    for _ in range(4):
        loss, logged = method.training_step(batch)
        signs.append(round(float((loss.detach() - logged["data"]) / (10 * logged["trace"]))))
    assert signs == [-1, -1, 1, 1]
    assert method.state_dict()["steps_done"] == 4
    again = build("cm_global", trace_warmup=2, trace_weight=10.0)
    again.load_state_dict(load(save({k: v.contiguous() for k, v in method.state_dict().items()})))
    loss, logged = again.training_step(batch)
    assert loss > logged["data"]


# -- options --------------------------------------------------------------------------------------


def test_fidelity_sets_what_is_not_given() -> None:
    def told(**options: Any) -> tuple[Any, ...]:
        m = build("cm_pixel", **options)
        return (
            m.form, m.mix, m.loss, m.trace_weight, m.trace_sign, m.trace_warmup, m.one_annotator, m.matrix_lr_scale,
        )  # fmt: skip

    assert told() == ("softmax", "probs", "nll", 0.01, 1, 200, False, 1.0)
    assert told(fidelity="authors") == ("softplus", "probs", "ce_on_probs", 1.5, 1, 0, False, 1.0)
    assert told(fidelity="pionono") == ("softplus", "logits", "dice", 1.0, -1, 0, True, 100.0)
    assert build("cm_global").matrix_lr_scale == 10.0
    mixed = told(fidelity="authors", loss="nll", trace_weight=0.0, trace_warmup=7)
    assert mixed == ("softplus", "probs", "nll", 0.0, 1, 7, False, 1.0)
    assert build("cm_global", backbone="unet_zhang", widths=None).trunk.magnify is False
    assert build("cm_global", backbone="unet_zhang", widths=None, fidelity="authors").trunk.magnify is True


def test_refusals() -> None:
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method("cm_global", describe(identity="none"), **SMALL)
    with pytest.raises(UserError, match="zhang_width"):
        build("cm_global", backbone="unet_zhang")
    with pytest.raises(UserError, match="unet_r18"):
        build("cm_global", backbone="unet_r18", widths=None, backbone_weights="weights.safetensors")
    with pytest.raises(UnsupportedPair, match="zhang_depth"):
        create_method("cm_pixel", describe(size=(8, 8)), backbone="unet_zhang", zhang_depth=4)
    with pytest.raises(UserError, match=r"method\.trace_sign"):
        build("cm_global", trace_sign=0)
    with pytest.raises(UserError, match=r"method\.init_diagonal"):
        build("cm_global", init_diagonal=1.0)
    with pytest.raises(UserError, match="did you mean 'trace_weight'"):
        build("cm_pixel", trace_wieght=1.0)


def test_zhang_unet_takes_any_size() -> None:
    method = create_method("cm_pixel", describe(size=(33, 21)), backbone="unet_zhang", zhang_depth=3, zhang_width=4)
    assert method.predict(torch.rand(1, 1, 33, 21)).raters.shape == (1, 3, 33, 21)
    method = create_method("cm_pixel", describe(), fidelity="authors", backbone="unet_zhang", zhang_depth=3)
    assert method.predict(torch.rand(1, 1, 33, 21)).raters.shape == (1, 3, 33, 21)


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_and_saving(name: str) -> None:
    method = build(name, rank=1) if name == "cm_pixel" else build(name)
    method = method.double()
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    out = method.predict(image)
    assert out.raters.dtype == torch.float64
    other = build(name, rank=1) if name == "cm_pixel" else build(name)
    other = varied(other)
    other.load_state_dict(load(save({k: v.contiguous() for k, v in method.state_dict().items()})))
    assert torch.equal(other.predict(image).raters, out.raters)
