"""The report on a comparison or a run: one HTML page that needs no network, and tables beside it.

`views` reduces runs to what the page shows, `content` arranges it, `templates` has the words and
the looks.
"""
