"""The command line, `tower`: one file for each group of commands. It reads arguments and prints results; other rooms do the work."""
