"""Render: one run over one episode, or over a benchmark's cells.

`render` claims the episode and starts the run, `drive` renders many shots at once, `shot` takes one shot through its stages, `studio`
makes the takes, `gate_tasks` holds the tasks that run on CPUs. What happens to accepted takes afterwards is the work of the room `post`.
"""
