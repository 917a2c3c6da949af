"""The grid as a web page, of the extra ``peergrid[dashboard]``.

``watcher`` asks a visiting ``Peer`` how the grid is, ``view`` makes that what the page shows, and
``app`` sends it: whole once, then what has changed. ``guard`` lets in who has the token,
``metrics`` writes the same for Prometheus, ``serving`` runs all this. The page itself is
``assets/``: one document, one style sheet and a few modules, served as they are written.
"""
