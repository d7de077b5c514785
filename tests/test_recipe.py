"""utils/recipe.py: settings by the length of a text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_config import parsed

import train
from utils.config import flat, settings_from
from utils.recipe import recipe, text_bytes

SIZES = st.integers(0, 10**12)


@given(SIZES, SIZES)
def test_a_longer_text_is_trained_longer_and_more_freely(a, b):
    short, long = (recipe(n) for n in sorted((a, b)))
    for name in "steps", "vocab", "lr":
        assert short[name] <= long[name]
    assert short["dropout"] >= long["dropout"]


@given(SIZES)
def test_a_recipe_is_settings_that_hold(n):
    values = recipe(n)
    assert values.items() <= flat(settings_from(values)).items()
    assert values["eval_every"] <= values["steps"]


def test_bytes_of_files_of_prepared_texts_and_of_mixtures(tmp_path):
    a, b, made = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "made"
    a.write_text("é" * 100, encoding="utf-8")
    b.write_text("b" * 30, encoding="utf-8")
    made.mkdir()
    meta = made / "meta.json"
    meta.write_text(json.dumps({"train_bytes": 9000, "val_bytes": 1000}), encoding="utf-8")
    assert text_bytes(str(a)) == 200
    assert text_bytes(str(made)) == 10_000
    assert text_bytes("not used", f"{a}=3 {b}=1") == 230
    assert text_bytes(str(tmp_path / "gone.txt")) == 0
    for damaged in "{", "[]", '{"train_bytes": "x", "val_bytes": 1}':
        meta.write_text(damaged, encoding="utf-8")
        assert text_bytes(str(made)) == 0


@pytest.mark.parametrize("n", [20_000, 300_000, 6_000_000])
def test_a_text_of_ones_own_is_trained_by_its_recipe(tmp_path, n):
    """Flags win over it, and a config is taken as it is."""
    text = tmp_path / "my.txt"
    text.write_bytes(b"a" * n)
    assert recipe(n).items() <= flat(parsed("--data", str(text))).items()
    for flag in "steps", "minutes":  # it ends when it is told to, not by the recipe's patience
        settings = flat(parsed("--data", str(text), f"--{flag}", "7"))
        assert settings[flag] == 7
        assert settings["patience"] == 0
        assert settings["eval_every"] == flat(parsed())["eval_every"]
        assert settings["dropout"] == recipe(n)["dropout"]
    config = tmp_path / "own.yaml"
    config.write_text("lr: 0.5\n", encoding="utf-8")
    settings = parsed("--config", str(config), "--data", str(text))
    assert flat(settings) == flat(settings_from({"lr": 0.5, "data": str(text), "run": "own"}))


def test_a_resumed_run_keeps_its_recipe(tmp_path, monkeypatch):
    """Also when its text is another length by then: the run's own settings count."""
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "my.txt"
    text.write_text("a" * 20_000, encoding="utf-8")
    config = tmp_path / "runs" / "my" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("data: my.txt\nsteps: 33\nattn_dropout: 0.0\n", encoding="utf-8")
    _, settings = train.parse(["--resume", "--data", "my.txt"])
    assert (settings.train.steps, settings.model.dropout) == (33, 0.0)


def test_overfitting_one_batch_drops_nothing(tmp_path):
    text = tmp_path / "my.txt"
    text.write_text("a" * 20_000, encoding="utf-8")
    _, settings = train.parse(["--data", str(text), "--overfit", "--attn_dropout", "0.1"])
    assert (settings.model.dropout, settings.model.attn_dropout) == (0, 0)
    assert settings.train.patience == 0
