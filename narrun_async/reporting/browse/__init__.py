"""Shows a copy of a database in a web browser of this machine, and nobody else."""

from narrun_async.reporting.browse.metadata import Shown
from narrun_async.reporting.browse.serving import Link, serve_site
from narrun_async.reporting.browse.site import Copy

__all__ = ["Copy", "Link", "Shown", "serve_site"]
