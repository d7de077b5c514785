"""Text from a model: continuations, tables about them, prompts and terminals."""
