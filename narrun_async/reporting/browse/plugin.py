"""What datasette asks a plugin, answered our way: silent about what goes wrong, and short where it would be long."""

from __future__ import annotations

import html
from http import HTTPStatus

from datasette import hookimpl
from datasette.utils.asgi import Base400, Response
from datasette.views.base import DatasetteError

#: the meanings of forty columns would fill the page before the first row
_FOLD_COLUMNS = """
const columns = document.querySelector("dl.column-descriptions");
if (columns) {
  const folded = document.createElement("details"), summary = document.createElement("summary");
  summary.textContent = "What the columns mean";
  columns.replaceWith(folded);
  folded.append(summary, columns);
}
"""


@hookimpl  # type: ignore[untyped-decorator]  # datasette has no types
def handle_exception(exception: Exception) -> Response:
    """A page that says what is wrong with a request; of a defect it names the kind and nothing else.

    Datasette itself prints all local values on the terminal.
    """
    status = exception.status if isinstance(exception, Base400 | DatasetteError) else 500
    told = str(exception) if status < 500 else type(exception).__name__
    page = f"<h1>{HTTPStatus(status).phrase}</h1><p>{html.escape(told)}</p><p><a href='/'>to the beginning</a></p>"
    return Response.html(page, status=status)


@hookimpl  # type: ignore[untyped-decorator]
def extra_body_script() -> str:
    return _FOLD_COLUMNS
