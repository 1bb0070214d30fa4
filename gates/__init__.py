"""Gates: judges of pixels. Pixels in, verdict out: decode -> clip, picture, pair, motion, light -> rules -> verdict.

Here live pure functions over decoded frames: measures, thresholds and verdicts. No Ray, no torch, no
catalog, no model weights, and nothing else of Tower's may be imported. Gates detect faults; they
claim nothing about beauty.
"""
