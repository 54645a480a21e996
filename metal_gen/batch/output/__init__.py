"""Records out: the journal, its lock, and resuming an interrupted run."""
