"""Doctor: what this machine or cluster can run, and what to do about what cannot. It only looks: nothing is started or written."""
