import pytest
from multirater.benchmark.config import resolve
from multirater.core.errors import UserError


def quick(**overrides):
    return resolve("unet_soft", "synthetic", "quick", overrides)


def test_layers_end_in_one_record_with_spelled_out_stage_budgets():
    config = quick()
    assert config["train"]["stages"] == [
        {"name": "main", "steps": 600, "epochs": None, "lr": 3e-3, "warmup_steps": 50, "batch_size": 12}
    ]
    assert config["method"]["options"]["backbone"] == "unet_small"  # from the generic preset
    assert config["eval"]["n_samples"] == 50


def test_override_wins_and_a_new_unit_of_budget_replaces_the_old():
    config = quick(train={"epochs": 3, "stage": {"main": {"lr": 0.5}}}, method={"output_bias": 0})
    assert config["train"]["stages"][0]["epochs"] == 3
    assert config["train"]["stages"][0]["steps"] is None
    assert config["train"]["stages"][0]["lr"] == 0.5
    assert config["method"]["options"]["output_bias"] == 0.0


def test_a_budget_set_by_hand_is_for_every_stage_unless_one_has_its_own():
    def steps(**train):
        stages = resolve("dpersona", "synthetic", "quick", {"train": train})["train"]["stages"]
        return [(s["steps"], s["epochs"]) for s in stages]

    assert steps() == [(600, None), (200, None)]
    assert steps(steps=20) == [(20, None), (20, None)]
    assert steps(epochs=2) == [(None, 2), (None, 2)]
    assert steps(steps=20, stage={"personalised": {"steps": 7}}) == [(20, None), (7, None)]
    assert steps(lr=1e-3) == [(600, None), (200, None)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": {"stepz": 5}}, r"train\.stepz.*did you mean 'steps'"),
        ({"train": {"batch_size": 0}}, r"train\.batch_size = 0 is not allowed: .*greater than or equal to 1"),
        ({"train": {"steps": 5, "epochs": 5}}, "exactly one of train.steps and train.epochs"),
        ({"train": {"stage": {"man": {"steps": 1}}}}, r"train\.stage\.man.*did you mean 'main'"),
        ({"train": {"stage": {"main": {"stps": 1}}}}, r"did you mean 'steps'"),
        ({"train": {"stage": {"main": {"steps": 1, "epochs": 1}}}}, "only one of steps and epochs"),
        ({"train": {"lr": float("inf")}}, r"train\.lr = inf is not allowed"),
        ({"method": {"output_bias": float("nan")}}, r"method\.output_bias = nan is not allowed"),
        ({"method": {"bakbone": "unet_small"}}, r"method\.bakbone.*did you mean 'backbone'"),
        ({"method": {"backbone": "vgg"}}, r"method\.backbone = 'vgg' is not allowed.*'unet_small'"),
        ({"dataset": {"sise": 64}}, r"dataset\.sise.*did you mean 'size'"),
        ({"eval": {"n_sample": 5}}, r"eval\.n_sample.*did you mean 'n_samples'"),
    ],
)
def test_wrong_keys_and_values_are_one_sentence(overrides, message):
    with pytest.raises(UserError, match=message) as error:
        quick(**overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unet_sof", "synthetic", "quick"), "unknown method 'unet_sof': did you mean 'unet_soft'"),
        (("unet_soft", "sinthetic", "quick"), "unknown dataset 'sinthetic': did you mean 'synthetic'"),
        (("unet_soft", "synthetic", "quik"), "unknown preset 'quik': did you mean 'quick'"),
    ],
)
def test_unknown_names_suggest_the_nearest(arguments, message):
    with pytest.raises(UserError, match=message):
        resolve(*arguments, {})
