"""What the answers are worth: validity, prevalence, comparison. Arrays in, values out; no I/O.

The modules need the extra `analysis` (numpy, scipy, statsmodels, scikit-learn), except those that hold the values:
`values`, `evaluation_tree`, `comparison_tree`. So this package imports none of its modules, and only `app` imports
those that compute, when somebody asks. What every run counts without the extra is in `metrics`.
"""
