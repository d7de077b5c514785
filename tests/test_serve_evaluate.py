"""`python -m utils.serve --evaluate`: the harness's tasks by one command, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub_models
import pytest
from harness_tasks import answers, ours, peer, remote, write_tasks
from serve_tools import running
from test_hub_import import smollm2
from test_serve_harness import agree

from utils.hub.__main__ import main as hub
from utils.serve.__main__ import main
from utils.serve.evaluate import OFFLINE, evaluate

CHOOSE = ["--device", "cpu", "--evaluate", "choose.yaml"]


@pytest.fixture
def toy(tmp_path):
    """A run by its name, and tasks in the directory of the test."""
    hub_models.make_run(tmp_path / "runs" / "toy", "llama", block_size=96)
    write_tasks(tmp_path, 3)
    return "toy"


def test_one_command_prints_a_table_and_writes_all_answers(toy, capsys):
    main(["--run", toy, *CHOOSE, "write.yaml", "--limit", "2", "--out", "results.json"])
    out = capsys.readouterr().out
    assert "|choose|" in out
    assert "exact_match" in out
    found = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert (found["config"]["model"], found["config"]["run"]) == ("llm_tiny", "toy")
    assert found["config"]["model_num_parameters"] == hub_models.model("llama").n_params()
    told = [[answer[0] for answer in sample["resps"]] for sample in found["samples"]["choose"]]
    want = [answer for sample in told for answer in sample]
    assert len(want) == 2 * 3  # two samples of three choices
    right = [sample["acc"] for sample in found["samples"]["choose"]]
    assert right == [float(max(three)[0] == three[0][0]) for three in told]
    assert found["results"]["choose"]["acc,none"] == sum(right) / 2


def test_a_chat_asks_by_the_template(toy):
    plain, chat = (
        evaluate(toy, ["choose.yaml"], limit=1, chat=chat, device="cpu") for chat in (False, True)
    )
    (sample,) = chat["samples"]["choose"]
    context, _ = sample["arguments"][0]
    assert context.startswith("<|start|>user: ")
    assert context.endswith("<|end|><|start|>assistant: ")
    assert sample["resps"] != plain["samples"]["choose"][0]["resps"]


@pytest.mark.parametrize(("flags", "said"), [
    (["--evaluate", "nowhere.yaml"], "nowhere.yaml is no task: give the path of a YAML file"),
    (["--evaluate", "choose.jsonl"], "choose.jsonl is no task"),
    (["--evaluate", "broken.yaml"], "a task is not YAML: while parsing"),
    ([*CHOOSE, "--limit", "0"], "limit=0 must be 1 or more"),
    ([*CHOOSE, "--out", "no/where.json"], "there is no such directory"),
    ([*CHOOSE, "--run", "toy", "tiny"], "--evaluate takes one run, not 2"),
    (["--limit", "3"], "go with --evaluate TASK.yaml"),
    ([*CHOOSE, "--run", "toy:base"], "toy has no adapters to leave out"),
])  # fmt: skip
def test_what_cannot_be_evaluated_is_said(toy, error_of, flags, said):
    Path("broken.yaml").write_text("task: [\n", encoding="utf-8")
    assert said in error_of(main, "--run", toy, *flags)


def test_who_has_no_harness_is_told_what_to_install(toy, error_of, monkeypatch):
    monkeypatch.delitem(sys.modules, "utils.serve.harness")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert "pip install 'llm-tiny[harness]' (lm_eval is missing)" in error_of(
        main, "--run", toy, *CHOOSE
    )


@pytest.mark.slow
def test_nothing_looks_for_a_network(toy):
    """Nor waits for one: a process in which every connection fails, and no variable says why."""
    code = "import socket, sys\n"
    code += "def refuse(*a): print('connects', file=sys.stderr); raise OSError('no network')\n"
    code += "socket.socket.connect = socket.getaddrinfo = refuse\n"
    code += "from utils.serve.__main__ import main; main(sys.argv[1:])"
    env = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, "--run", toy, *CHOOSE, "read.yaml", "write.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "connects" not in done.stderr
    assert "bits_per_byte" in done.stdout


@pytest.mark.slow
def test_smollm2_gets_the_same_numbers_three_ways(tmp_path):
    smollm2()
    run, M = tmp_path / "smollm2", 256
    hub(["import", "smollm2", "--run", str(run)])
    write_tasks(tmp_path, 8)
    told = answers(ours(run, max_length=M), tmp_path)
    agree(told, answers(peer(run, tmp_path / "hf", max_length=M), tmp_path))
    with running(run) as server:
        agree(answers(remote(server, M), tmp_path), told)
