"""The desk: the web service of Tower, and the page that it serves.

| part | holds |
|---|---|
| `main.py` | `build_app`: the one app, for uvicorn and for Ray Serve |
| `guard.py` | who may ask: hosts, origins, the token, sizes, rates; headers of every answer |
| `problems.py` | errors as problem details (RFC 9457) |
| `desk.py` | what routes share: settings, the catalog, what changed in it |
| `routers/` | one file for each group of routes: what is asked, what is answered |
| `services/` | the work behind them; no web framework |
| `page/` | the review page: plain modules, no build step |

Nothing that matters lives in memory: a service that is started again shows what the one before showed.
"""
