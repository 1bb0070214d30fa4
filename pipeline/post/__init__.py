"""Post: turns accepted takes into files for a person: the movie, the contact sheet, media files named by shot, the summary.

`episode` runs all steps: plan, render, deliver.
"""
