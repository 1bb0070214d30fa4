"""Imports: what other programs wrote becomes an episode file that a person goes on editing.

`fountain` and `fdx` read scripts, which `breakdown` turns into sequences, shots and dialogue; `kitsu` reads a list of shots, `storyboarder`
boards. All of them give a `draft`, and `write` makes the YAML of it: with the places in the source as comments, and with the word TODO,
which no episode loads with, wherever the source does not say what the format needs.
"""
