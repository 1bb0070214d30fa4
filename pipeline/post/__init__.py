"""Post: from accepted takes to what a person watches: the movie, the contact sheet, shots by name, the summary.

`episode` is the whole way: plan, render, deliver. No command line here, and no evidence.
"""
