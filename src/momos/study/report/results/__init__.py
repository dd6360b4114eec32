"""docs/results.md from finished runs: `python -m momos.study.report.results RUNS… -o DOCS`."""
