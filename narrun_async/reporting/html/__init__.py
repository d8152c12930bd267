"""A report as one HTML file: what it says (`sections`, `blocks`, `charts`; pure), and how it looks (`rendering`).

Nothing here computes a statistic, reads a database or writes a file. What computes and draws is imported by `rendering`
alone, which needs the extra of `make analysis`.
"""
