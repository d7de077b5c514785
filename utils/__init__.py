"""The life of a run: settings, device, optimizer, step, metrics, checkpoint, log, plot."""
