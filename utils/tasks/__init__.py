"""What a training learns, put together: its batches, its objective, its scores, an example."""
