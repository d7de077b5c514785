"""Keys and values in int8: by hand, beside a cache of floats, and wherever slots are copied."""

import pytest
import torch
from hub_models import make_run
from hub_models import model as small_model

import sample
from model import generate
from model.adapt.quant import quantize
from model.generation.cache import KVCache
from model.generation.caches import Int8CacheLayer, from_bytes, in_bytes, new_cache
from model.generation.compiled import CompiledStep
from model.generation.engine import Engine
from model.generation.requests import Request


def eight(kind="llama", **change):
    model = small_model(kind, **change)
    model.cache_dtype = torch.int8
    return model


def test_bytes_by_hand():
    x = torch.tensor([[0.0, 3.0, -6.0], [0.0, 0.0, 0.0]])
    kept = in_bytes(x)
    assert kept.dtype == torch.int8
    assert kept[:, :3].tolist() == [[0, 64, -127], [0, 0, 0]]
    assert kept[0, 3:].clone().view(torch.float16).item() == pytest.approx(6 / 127, rel=1e-3)
    assert from_bytes(kept)[0].tolist() == pytest.approx([0, 3.02, -6], rel=2e-3)
    assert from_bytes(kept)[1].tolist() == [0, 0, 0]
    assert from_bytes(kept[0]).tolist() == from_bytes(kept)[0].tolist()


def test_bytes_are_near():
    x = torch.randn(4, 5, 32, generator=torch.Generator().manual_seed(0)) * 100
    off = (from_bytes(in_bytes(x)) - x).abs()
    assert (off <= 0.51 * x.abs().amax(-1, keepdim=True) / 127 + 0.01).all()
    assert off.max() > 0


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_reads_what_the_bytes_stand_for(kind):
    """Beside a cache of floats whose keys and values are rounded in the same way."""

    class Rounded(Int8CacheLayer):
        more = 0

        def append(self, k, v):
            plain = super(Int8CacheLayer, self).append
            return plain(from_bytes(in_bytes(k)), from_bytes(in_bytes(v)))

    model = eight(kind)
    ids = torch.randint(300, (2, 12), generator=torch.Generator().manual_seed(1))
    caches = new_cache(model, 2), KVCache(model.config, 2, layer=Rounded), KVCache(model.config, 2)
    with torch.inference_mode():
        ours, same, floats = (
            torch.cat([model.hidden_states(part, cache) for part in ids.split([5, 1, 6], 1)], 1)
            for cache in caches
        )
    torch.testing.assert_close(ours, same, rtol=1e-5, atol=1e-5)
    assert 1e-5 < (ours - floats).norm() / floats.norm() < 0.02


def test_it_takes_about_a_quarter():
    caches = [new_cache(model, 3) for model in (eight("llama"), small_model("llama"))]
    ours, floats = (sum(kv.nbytes for kv in cache.kv) for cache in caches)
    D = caches[0].config.head_size
    assert ours * 4 * D == floats * (D + 2)


def test_rows_are_as_alone_and_go_on_past_the_context():
    model = eight("llama", block_size=24)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    together = torch.stack(list(generate(model, prompts, 40, seed=[1, 2, 3])), 1)
    for row, ids, seed in zip(together, prompts, (1, 2, 3), strict=True):
        assert torch.cat(list(generate(model, [ids], 40, seed=[seed]))).tolist() == row.tolist()


def test_an_engine_writes_what_generate_does():
    """Rows that join, leave and are copied; a beginning that is known."""
    model = eight("llama", block_size=200)
    long = list(range(100, 230))
    prompts = [[1, 2], long[:70], [3], long[:75], [*long[:64], 7]]
    engine = Engine(model, rows=2)
    numbers = [engine.submit(Request(ids, steps=6, temperature=0)) for ids in prompts]
    texts = {n: [] for n in numbers}
    for event in engine.run():
        if event.token is not None:
            texts[event.number].append(event.token.id)
    for n, ids in zip(numbers, prompts, strict=True):
        assert texts[n] == [int(i) for i in generate(model, [ids], 6, temperature=0)]


def test_weights_in_integers_go_along():
    model = quantize(eight("llama"), 4)
    assert len(list(generate(model, [[1, 2, 3]], 8, temperature=0))) == 8


def test_what_does_not_go_is_said():
    model = eight("llama")
    model.cache_dtype = torch.float16
    with pytest.raises(ValueError, match=r"float16 must be torch\.int8"):
        new_cache(model, 1)
    with pytest.raises(ValueError, match="a window that slides"):
        list(generate(eight("llama", window=5), [[1]], 2))
    with pytest.raises(ValueError, match=r"reads no cache of torch\.int8"):
        CompiledStep(eight("llama"))


def test_sample_writes_with_it(error_of, capfd):
    make_run("runs/my", "llama")
    flags = ["--run", "my", "--prompt", "a", "--temp", "0", "--steps", "5", "--device", "cpu"]
    sample.main([*flags, "--cache", "int8"])
    assert capfd.readouterr().out.startswith("a")
    for other in "--no-cache", "--compile":
        assert "--cache int8 does not go" in error_of(sample.main, *flags, "--cache", "int8", other)
