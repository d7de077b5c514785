"""What a run reports: one stream of events, and the sinks that write them down."""
