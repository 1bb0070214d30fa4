"""Render: one run over one episode, or over a benchmark's cells.

`render` claims the episode and starts the run, `drive` renders many shots at once, `shot` takes one shot through its stages, `studio`
makes the takes, `gate_tasks` holds the tasks that run on CPUs. `live` is what a run says of itself while it renders. `job` says
what a render as a job is, `local_jobs` and `ray_jobs` start and stop such renders, here and on a cluster. What happens to accepted takes
afterwards is the work of the room `post`.
"""
