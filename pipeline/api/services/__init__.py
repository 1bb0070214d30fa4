"""The work behind the routes: reads the catalog and files, starts jobs. It knows no web framework."""
