"""Render: one run over one episode, or over a benchmark's cells.

`render` claims and begins, `drive` lets shots live beside each other, `shot` is one shot's life, `studio` makes its takes, `gate_tasks`
are what runs on CPUs. What becomes of accepted takes is not known here: that is `post`.
"""
