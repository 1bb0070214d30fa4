"""The desk: the web service of Tower, and the page that it serves."""
