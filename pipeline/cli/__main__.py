"""`python -m pipeline.cli`: the same as `tower`, where nothing is installed."""

from .main import main

main()
