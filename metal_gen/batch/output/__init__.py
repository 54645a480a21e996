"""Records out: the journal, its lock, and how an interrupted run is resumed."""
