"""The rule of a fair comparison, in words: what every row of a table was given, and which rows got something else.

The suite gives all methods the same updates or epochs, batches, learning-rate schedule, augmentation, checkpoint rule
and samples unless a preset or the user says otherwise for one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_SHARED = {
    "schedule": "schedule {}",
    "optimizer": "{}",
    "weight_decay": "weight decay {:g}",
    "augment": "augmentation {}",
    "precision": "precision {}",
    "tf32": "TF32 {}",
}
# What is only said where it is not this.
_USUAL = {"weight decay 0", "precision fp32", "TF32 False", "0 warm-up steps"}


def budget_note(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """One sentence: the budget that most rows share, then every row and stage that differs; empty without a budget.

    Args:
        rows: name of a row and the specification of one of its cells (``train`` and ``eval`` sections).
    """
    # Of every field: what each (row, stage) has. A field that a stage cannot change counts once a row.
    given: dict[str, dict[tuple[str, str], str]] = {}
    for name, spec in rows:
        for field, stage, text in _facts(spec):
            given.setdefault(field, {})[name, stage] = text
    common = {field: Counter(values.values()).most_common(1)[0][0] for field, values in given.items()}
    if not common:
        return ""
    others: dict[tuple[str, str], list[str]] = {}
    for field, values in given.items():
        for place, text in values.items():
            if text != common[field]:
                others.setdefault(place, []).append(text)
    said = [text for text in common.values() if text not in _USUAL]
    sentence = "budget: " + ", ".join(said)
    if others:
        each = [f"{' '.join(filter(None, place))}: {', '.join(texts)}" for place, texts in sorted(others.items())]
        sentence += "; otherwise " + "; ".join(each)
    return sentence


def _facts(spec: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """(field, stage or nothing, words) of one specification."""
    train = spec.get("train") or {}
    stages = train.get("stages") or []
    for stage in stages:
        name = stage["name"] if len(stages) > 1 else ""
        if stage.get("steps") or stage.get("epochs"):
            yield "length", name, f"{stage['steps']} updates" if stage.get("steps") else f"{stage['epochs']} epochs"
        for key, words in (
            ("batch_size", "batch {}"),
            ("lr", "learning rate {:g}"),
            ("warmup_steps", "{} warm-up steps"),
        ):
            if stage.get(key) is not None:
                yield key, name, words.format(stage[key])
    for key, words in _SHARED.items():
        if train.get(key) is not None:
            yield key, "", words.format(train[key])
    if train.get("grad_clip") is not None:
        yield "grad_clip", "", f"gradient norm at most {train['grad_clip']:g}"
