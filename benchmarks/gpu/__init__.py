"""Everything worth knowing of a GPU, in one command of eight minutes: `python -m benchmarks.gpu`, on a machine with neither Ray nor Delta.

`__main__` has the steps in order of their worth and runs each in a process of its own; `report` writes every figure as it comes.
The steps: `agreement`, `clips` (LTX-Video, one clip and ten), `stills` (and AnimateDiff), `small_card`, `ratios`, `memory`.
"""
