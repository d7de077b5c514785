"""The life of a run: settings, training, reporting, writing, benchmarks, commands."""
