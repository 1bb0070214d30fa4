"""Doctor: reports what this machine or cluster can run, and how to fix what cannot run. It starts nothing and writes nothing."""
