"""The routes: one file for each group. They read requests, call services, and give typed answers."""
