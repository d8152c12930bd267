"""Writes the results of an experiment into files for every reader, with a codebook that says what their columns mean.

All files of an export hold the same rows and columns, and are readable by the owner only. They take their names when
all of them are whole, so a kill at any moment leaves whole ones, old or new. Columns that hold or quote the narrative
are left out unless they are asked for.
"""

from narrun_async.reporting.exports.exporting import (
    EXPORT_FORMATS,
    ExportedFiles,
    ExportFormat,
    ExportOptions,
    XptVersion,
    export_results,
)

__all__ = ["EXPORT_FORMATS", "ExportFormat", "ExportOptions", "ExportedFiles", "XptVersion", "export_results"]
