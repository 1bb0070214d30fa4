"""Gates: judges of pixels. Pixels in, verdict out: decode -> clip, picture, pair, motion, light -> rules -> verdict.

The package holds pure functions over decoded frames: measures, thresholds and verdicts. It imports no Ray,
no torch, no model weights and no other package of Tower. Gates detect faults; they claim nothing about beauty.
"""
