"""`python -m pipeline.cli`: the same as `tower`, for machines on which Tower is not installed."""

from .main import main

main()
