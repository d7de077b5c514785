"""GPT-2, LLaMA and BERT of one size, on one text, at equal compute: docs/models.md."""
