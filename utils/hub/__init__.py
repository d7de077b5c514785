"""Pretrained models in, trained ones out: Hugging Face's directories, GGUF, peft."""
