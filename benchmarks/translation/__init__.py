"""How good translations are: DRDD beside baselines, on the same pairs, network and budget.

`python -m benchmarks.translation run` trains and scores what is missing; `report` draws it.
"""
