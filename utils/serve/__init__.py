"""A server of runs: OpenAI's API, a page to write with, an evaluation harness. Extra `serve`."""
