"""BERT in and out of the hub: directories of transformers, WordPiece and BPE, clear refusals."""

import json
import os
from pathlib import Path

import pytest
import torch

from model import BertConfig, TinyBERT
from tok import BPETokenizer, WordPieceTokenizer
from tok.special import BERT_TOKENS
from utils.hub.__main__ import main
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
TEXT = "The quick brown fox ran home. The lazy dog slept, and the fox ran home again. "
SHAPE = {"block_size": 24, "n_layer": 2, "n_head": 2, "d_model": 32}


def tokenizer(kind="wordpiece"):
    if kind == "bpe":
        return BPETokenizer.train([TEXT * 3], 280, special_tokens=[*BERT_TOKENS])
    return WordPieceTokenizer.train([TEXT * 3], 60, special_tokens=())


def random_model(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def peer(kind="BertForPreTraining", **change):
    """A directory `theirs` of transformers: its weights, and a vocab.txt alone."""
    words = tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 64, "max_position_embeddings": 24}
    config = transformers.BertConfig(vocab_size=words.vocab_size, **{**shape, **change})
    made = random_model(getattr(transformers, kind)(config))
    made.save_pretrained("theirs")
    words.save_vocab(Path("theirs/vocab.txt"))
    return made, words


def make_run(path, kind="wordpiece", **change):
    """A run of a BERT with random weights."""
    words = tokenizer(kind)
    built = random_model(TinyBERT(BertConfig(vocab_size=words.vocab_size, **SHAPE, **change)))
    write_run(Path(path), Found(built.config, built.state_dict(), words, Pretrained("made here")))
    return built, words


def ids():
    return torch.randint(50, (3, 11), generator=torch.Generator().manual_seed(2))


def test_a_directory_becomes_a_run_that_computes_the_same(capsys):
    import sample

    theirs, words = peer()
    main(["import", "theirs", "--run", "mine"])
    assert '--fill "The [MASK] ran home"' in capsys.readouterr().out
    ours, tok, _ = load_model(Path("runs/mine"), kind="bert")
    assert tok.encode(TEXT) == words.encode(TEXT)
    x, padding = ids(), torch.arange(11) < torch.tensor([[11], [4], [8]])
    with torch.no_grad():
        want = theirs(x, attention_mask=padding.long()).prediction_logits[padding]
        got = ours.eval()(x, padding=padding)[0][padding]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    sample.main(["--run", "mine", "--fill", "the [MASK] ran home", "--top", "2", "--device", "cpu"])
    assert "ran home" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("BertModel", ["masked-token head", "next-sentence head"]),
        ("BertForMaskedLM", ["pooler", "next-sentence head"]),
        ("BertForSequenceClassification", ["masked-token head", "next-sentence head"]),
    ],
)
def test_heads_that_a_directory_lacks_are_named(kind, lacks, capsys):
    labels = {"num_labels": 3} if "Sequence" in kind else {}
    theirs, _ = peer(kind, **labels)
    main(["import", "theirs", "--run", "mine"])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert len(said) == len(lacks)
    assert all(f"it has no {head}" in line for head, line in zip(lacks, said, strict=True))
    ours = load_model(Path("runs/mine"), kind="bert")[0].eval()
    x = ids()
    with torch.no_grad():
        if labels:
            torch.testing.assert_close(
                ours.classifier(ours.pooler(ours.hidden_states(x))), theirs(x).logits
            )
        elif kind == "BertModel":
            torch.testing.assert_close(ours.hidden_states(x), theirs(x).last_hidden_state)
        else:
            torch.testing.assert_close(ours(x)[0], theirs(x).logits)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_transformers_reads_an_export(kind, capsys):
    """Weights without a key too few or too many, and a tokenizer that gives [CLS] ids [SEP]."""
    built, words = make_run("runs/mine", kind)
    main(["export", "mine", "--to", "hf", "out"])
    assert "BertForPreTraining" in capsys.readouterr().out
    theirs, info = transformers.AutoModelForPreTraining.from_pretrained(
        "out", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x = ids()
    with torch.no_grad():
        want = theirs.eval()(x)
        hidden = built.hidden_states(x)
        torch.testing.assert_close(built(x)[0], want.prediction_logits, rtol=0, atol=1e-5)
        pair = built.next_sentence(built.pooler(hidden))
        torch.testing.assert_close(pair, want.seq_relationship_logits, rtol=0, atol=1e-5)
    known = transformers.AutoTokenizer.from_pretrained("out")
    special = words.special_tokens
    assert known(TEXT)["input_ids"] == [special["[CLS]"], *words.encode(TEXT), special["[SEP]"]]
    assert known(TEXT, TEXT)["token_type_ids"][-1] == 1
    assert (known.mask_token, known.pad_token) == ("[MASK]", "[PAD]")
    assert theirs.config.pad_token_id == special["[PAD]"]
    assert "fill-mask" in Path("out/README.md").read_text(encoding="utf-8")
    main(["import", "out", "--run", "back"])
    back = load_model(Path("runs/back"), kind="bert")[0].state_dict()
    assert all(torch.equal(back[name], t) for name, t in built.state_dict().items())


def test_a_classifier_is_exported_with_its_classes():
    built, _ = make_run("runs/mine", classes=3)
    main(["export", "mine", "--to", "hf", "out"])
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained("out").eval()
    x = ids()
    with torch.no_grad():
        got = built.classifier(built.pooler(built.hidden_states(x)))
        torch.testing.assert_close(got, theirs(x).logits, rtol=0, atol=1e-5)
    assert theirs.config.id2label == {i: f"LABEL_{i}" for i in range(3)}
    main(["import", "out", "--run", "back"])
    assert load_model(Path("runs/back"), kind="bert")[0].config.classes == 3


def test_what_cannot_be_exported_is_said():
    make_run("runs/mine")
    for to in ("gguf", "html", "peft"):
        with pytest.raises(ValueError, match=f"mine is a BERT, which {to} is not for; export it"):
            main(["export", "mine", "--to", to, "out"])
        assert not Path("out").exists()
    make_run("runs/modern", norm_at="pre", pos="rope")
    with pytest.raises(ValueError, match="norm_at='pre' has no counterpart"):
        main(["export", "modern", "--to", "hf", "out"])
    assert not Path("out").exists()


def commands():
    import bench
    import sample
    from utils.compress.__main__ import main as compress
    from utils.judge import main as judge
    from utils.look.__main__ import main as look
    from utils.serve.__main__ import main as serve

    return {
        "sample": lambda: sample.main(["--run", "mine", "--prompt", "The"]),
        "look": lambda: look(["mine", "The fox"]),
        "compress": lambda: compress(["mine", "--int8", "--out", "small"]),
        "serve": lambda: serve(["--run", "mine", "--port", "0"]),
        "judge": lambda: judge(["--run", "mine"]),
        "bench": lambda: bench.main(["--run", "mine", "--only", "run", "--runs", "1"]),
    }


@pytest.mark.parametrize("name", ["sample", "look", "compress", "serve", "judge", "bench"])
def test_commands_for_gpts_refuse_it(name):
    make_run("runs/mine")
    with pytest.raises(ValueError, match="is a BERT, which reads and does not write"):
        commands()[name]()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "vocab.txt").unlink(), "no tokenizer.json"),
        (lambda p: (p / "vocab.txt").write_text("[UNK]\na\na\n"), "vocab.txt"),
        (lambda p: (p / "config.json").write_text('{"model_type": "roberta"}'), "it is bert with"),
    ],
)
def test_damaged_directories_are_refused(change, message):
    peer()
    change(Path("theirs"))
    with pytest.raises(ValueError, match=message):
        main(["import", "theirs", "--run", "mine"])
    assert not Path("runs/mine").exists()


def test_cased_vocabularies_stay_cased():
    peer()
    Path("theirs/tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    main(["import", "theirs", "--run", "mine"])
    tok = load_model(Path("runs/mine"), kind="bert")[1]
    assert tok.encode("THE") == [tok.special_tokens["[UNK]"]]
