"""utils/config.py: one declaration per setting."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from tok.cli import Parser
from utils.config import FIELDS, flat, read_yaml, settings_from, write_yaml
from utils.flags import add_settings, settings_of
from utils.recipe import recipe
from utils.runs import run_dir


def parsed(*args, base=None):
    parser = Parser()
    add_settings(parser)
    return settings_of(parser.parse_args(list(args)), base)


def test_defaults_then_yaml_then_flags(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr: 5e-4\nn_layer: 3\n", encoding="utf-8")
    settings = parsed("--config", str(path), "--n_layer", "5")
    assert settings.optim.lr == 5e-4  # YAML alone would read 5e-4 as text
    assert settings.model.n_layer == 5
    assert settings.optim.beta1 == 0.9
    assert settings.train.run == "c"


def test_every_setting_is_a_flag_with_help(capsys):
    parser = Parser(prog="x")
    add_settings(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, field in FIELDS.items():
        assert f"--{name} " in text
        assert " ".join(field.metadata["help"].split()) in text


def test_flags_are_unique_across_sections():
    names = [f.name for f in FIELDS.values()]
    assert len(names) == len(set(names)) == len(flat(settings_from({})))


def test_written_config_reads_back(tmp_path):
    values = {
        "lr": 3e-4,
        "pos": "rope",
        "doc_sep": "\n\n",
        "bias": False,
        "data": "é.txt",
        "seed": 7,
    }
    settings = settings_from(values)
    write_yaml(settings, tmp_path / "c.yaml")
    assert settings_from(read_yaml(tmp_path / "c.yaml")) == settings
    assert flat(settings)["pos"] == "rope"


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_from({}).optim.lr = 1.0


def test_booleans():
    assert parsed("--bias", "false").model.bias is False
    assert parsed("--compile").train.compile is True
    assert parsed("--compile", "True").train.compile is True


def test_data_without_config_leaves_how_tiny_is_read(monkeypatch):
    """tiny.yaml divides its own text at blank lines; a text named by --data is one document."""
    assert parsed().data.doc_sep == "\n\n"
    assert Path(parsed().data.data).is_file()  # also when called from another directory
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert parsed("--data", "./data/tiny.txt").data.doc_sep == "\n\n"
    settings = parsed("--data", "some/where.txt")
    assert settings.data.doc_sep == "<|endoftext|>"
    own = {"data": "some/where.txt", "doc_sep": "<|endoftext|>", "run": "where"}
    own["sampling"] = "shuffle"
    assert flat(settings) == flat(parsed()) | recipe(0) | own
    assert settings.train.run == "where"


def test_run_dir():
    assert str(run_dir("tiny")) == "runs/tiny"
    assert str(run_dir("runs/tiny")) == "runs/tiny"
    assert str(run_dir("/a/b")) == "/a/b"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lrr": 1}, "unknown setting lrr; did you mean lr?"),
        ({"n_layers": 1}, "did you mean n_layer?"),
        ({"vocab_size": 100}, "set vocab instead"),
        ({"n_layer": "two"}, "n_layer='two' is not a whole number"),
        ({"n_layer": 2.5}, "n_layer=2.5 is not a whole number"),
        ({"n_layer": True}, "n_layer=True is not a whole number"),
        ({"n_layer": None}, "not a whole number"),
        ({"lr": [1]}, "not a finite number"),
        ({"lr": "nan"}, "not a finite number"),
        ({"grad_clip": ".inf"}, "not a finite number"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"bias": 3}, "bias=3 is not true or false"),
        ({"data": ["a"]}, "is not text"),
        ({"pos": "learnt"}, "pos='learnt' is not one of learned, "),
        ({"n_head": 3, "d_model": 64}, "d_model=64 is not a multiple of n_head=3; try d_model=63"),
        ({"n_head": 4, "d_model": 4, "pos": "rope"}, "is odd"),
        ({"n_layer": 0}, "must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"d_ff": -1}, "d_ff=-1"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"lr": 0}, "lr=0"),
        ({"lr": 1e-5, "min_lr": 1e-4}, "min_lr=0.0001 must be in"),
        ({"beta2": 1}, "beta2=1"),
        ({"grad_clip": -1}, "grad_clip=-1"),
        ({"steps": 0}, "steps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"dtype": "fp8"}, "dtype='fp8' is not one of"),
    ],
)
def test_refusals(values, said):
    with pytest.raises(ValueError, match=r".") as e:
        settings_from(values)
    assert said in str(e.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("- a\n- b\n", "not list"), ("a: [", "is not YAML"), ("learning: 1\n", "unknown setting")],
)
def test_bad_yaml_names_the_file(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.yaml") as e:
        parsed("--config", str(path))
    assert said in str(e.value)


def test_missing_and_empty_config(tmp_path):
    with pytest.raises(ValueError, match="no config file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    assert yaml.safe_load("1e-3") == "1e-3"  # why coerce exists
